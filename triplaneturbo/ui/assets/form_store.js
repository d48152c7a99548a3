  // Only the same tab can read it back. Without session storage the page works, but remembers nothing.
  const read = () => {
    try { return JSON.parse(sessionStorage.getItem("triplaneturbo-form")) || {}; } catch (blocked) { return {}; }
  };
  const write = (form) => {
    try { sessionStorage.setItem("triplaneturbo-form", JSON.stringify(form)); } catch (blocked) { /* not remembered */ }
  };
