"""What the page does in the browser by itself."""

from __future__ import annotations

# While Live is on, a pause in typing is as good as a press of the button. Enter comes before it.
LIVE = """
  let timer = 0;
  const typed = (event) => event.target.closest && event.target.closest("#prompt");
  document.addEventListener("input", (event) => {
    if (!typed(event)) return;
    clearTimeout(timer);
    if (!document.querySelector("#live input").checked) return;
    timer = setTimeout(() => document.querySelector("#live-go").click(), 250);
  });
  document.addEventListener("keydown", (event) => {
    if (typed(event) && event.key === "Enter") clearTimeout(timer);
  }, true);
"""

# The viewer (Babylon, in Gradio 6) complains of a file that comes while it still loads the one before, and
# tells nobody when that is over: it is once so many corners are drawn as the file has.
VIEWER = """
  const drawn = new Map();
  const watch = (kind, name, place) => {
    const prototype = window[kind] && window[kind].prototype;
    if (!prototype) return;
    const original = prototype[name];
    prototype[name] = function (...given) {
      drawn.set(given[place], performance.now());
      return original.apply(this, given);
    };
  };
  watch("WebGL2RenderingContext", "drawElements", 1);
  watch("GPURenderPassEncoder", "drawIndexed", 0);
  watch("GPURenderBundleEncoder", "drawIndexed", 0);
  const frame = () => new Promise((done) => setTimeout(done, 16));
  let since = -Infinity;
  window.ttViewer = {
    shown: [],  // when each file was drawn first
    // A file at a time; whoever got lost is not waited for.
    async begin() {
      while (performance.now() - since < 4000) await frame();
      since = performance.now();
    },
    async end(corners) {
      const begun = since;
      while (performance.now() - begun < 4000 && !((drawn.get(+corners) || 0) > begun)) await frame();
      this.shown.push(performance.now());
      if (since === begun) since = -Infinity;
    },
  };
"""

# What the browser is known by; drawn by itself, as gr.BrowserState may not be read yet when the page loads.
TOKEN = """() => {
  const name = "triplaneturbo";
  let token = null;
  try { token = localStorage.getItem(name); } catch (blocked) { /* it lasts as long as the page, then */ }
  if (!/^[0-9a-f]{64}$/.test(token || "")) {
    const drawn = [...crypto.getRandomValues(new Uint8Array(32))];
    token = drawn.map((byte) => byte.toString(16).padStart(2, "0")).join("");
    try { localStorage.setItem(name, token); } catch (blocked) { /* likewise */ }
  }
  return [token];
}"""

ON_LOAD = f"() => {{{LIVE}{VIEWER}}}"
BEGIN_VIEW = "async (turn, viewer) => { await window.ttViewer.begin(); return [turn, viewer]; }"
END_VIEW = "async (corners) => { await window.ttViewer.end(corners); }"
