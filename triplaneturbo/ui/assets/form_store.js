  // Only the same tab can read it back. Without session storage the page works, but remembers nothing.
  const read = () => {
    try { return JSON.parse(sessionStorage.getItem("triplaneturbo-form")) || {}; } catch (none) { return {}; }
  };
  const write = (kept) => {
    try { sessionStorage.setItem("triplaneturbo-form", JSON.stringify(kept)); } catch (no) { /* so be it */ }
  };
