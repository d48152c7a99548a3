() => {
  // Identifies the browser. gr.BrowserState may not be readable yet when the page loads.
  const name = "triplaneturbo";
  let token = null;
  try { token = localStorage.getItem(name); } catch (blocked) { /* the token lasts as long as the page */ }
  if (!/^[0-9a-f]{64}$/.test(token || "")) {
    const bytes = [...crypto.getRandomValues(new Uint8Array(32))];
    token = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
    try { localStorage.setItem(name, token); } catch (blocked) { /* see above */ }
  }
  return [token];
}
