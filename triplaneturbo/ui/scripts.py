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
  let placed = false;
  // A file at a time; whoever got lost is not waited for.
  const begin = async () => {
    while (performance.now() - since < 4000) await frame();
    since = performance.now();
  };
  const end = async (corners, camera) => {
    const begun = since;
    while (performance.now() - begun < 4000 && !((drawn.get(corners) || 0) > begun)) await frame();
    window.ttViewer.shown.push({ at: performance.now(), camera });
    if (since === begun) since = -Infinity;
  };
  window.ttViewer = {
    shown: [],  // when each file was drawn first, and from where
    async show(view, viewer, distance) {
      if (viewer.value && viewer.value.path === view.path) return;
      await begin();
      // A new file moves the camera to where it was told to be: that is where it stands now, then. The very
      // numbers that it has told would pass for its own echo, and not be kept for the new file.
      const camera = [viewer.camera_position[0] + 1e-6, ...viewer.camera_position.slice(1)];
      if (view.placed) camera[2] = null;  // the viewer's own choice
      else if (placed) camera[2] = distance;
      placed = view.placed;
      end(view.corners, camera);
      const { root, api_prefix } = window.gradio_config;
      const name = view.path.split(/[\\\\/]/).pop();
      const value = { path: view.path, url: `${root}${api_prefix}/file=${view.path}`, orig_name: name,
        meta: { _type: "gradio.FileData" } };
      return { __type__: "update", value, camera_position: camera };
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
SHOW = "async (view, viewer) => [await window.ttViewer.show(JSON.parse(view), viewer, DISTANCE)]"
