() => {
  // Identifies the browser. gr.BrowserState may not be readable yet when the page loads.
  const name = "triplaneturbo";
  let token = null;
  // In a frame, storage belongs to the outer page, too: a link opens another history, or none.
  let links = window.top === window;
  try { token = localStorage.getItem(name); } catch (blocked) { links = false; }
  if (!/^[0-9a-f]{64}$/.test(token || "")) {
    const bytes = [...crypto.getRandomValues(new Uint8Array(32))];
    token = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
    try { localStorage.setItem(name, token); } catch (blocked) { links = false; }
  }
  // Without storage the token lasts as long as the page.
  document.documentElement.classList.toggle("tt-no-links", !links);
  return [token];
}
