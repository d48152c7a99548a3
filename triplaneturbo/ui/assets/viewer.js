  // The viewer (Babylon, in Gradio 6) raises an error if a file arrives while it still loads the previous one,
  // and does not report when it is ready. It is ready once the file has arrived and a draw call covers as many
  // vertices as the file has: the previous mesh is disposed of before the new file is fetched.
  const TIMEOUT = 120000;  // milliseconds to wait for a file to be drawn
  const drawn = new Map();  // number of vertices -> time of the last draw call of that size
  const arrived = new Map();  // file name -> time of its last byte, and whether the request failed
  const watch = (kind, name, position) => {
    const prototype = window[kind] && window[kind].prototype;
    if (!prototype) return;
    const original = prototype[name];
    prototype[name] = function (...args) {
      drawn.set(args[position], performance.now());
      return original.apply(this, args);
    };
  };
  watch("WebGL2RenderingContext", "drawElements", 1);
  watch("GPURenderPassEncoder", "drawIndexed", 0);
  watch("GPURenderBundleEncoder", "drawIndexed", 0);
  const nameOf = (path) => path.split(/[\\/]/).pop();
  new PerformanceObserver((list) => {
    for (const { name, responseEnd, responseStatus } of list.getEntries()) {
      if (!name.includes("/file=")) continue;
      arrived.set(nameOf(decodeURI(name)), { at: responseEnd, failed: responseStatus >= 400 });
    }
  }).observe({ type: "resource" });
  const nextFrame = () => new Promise((done) => setTimeout(done, 16));
  const settled = (view, started) => {
    const file = arrived.get(nameOf(view.path));
    if (performance.now() - started > TIMEOUT) return true;
    if (!file || file.at < started) return false;
    return file.failed || (drawn.get(view.corners) || 0) > file.at;
  };
  let latest = 0;
  let loading = false;
  let placed = false;
  const follow = async (view, camera) => {
    const started = performance.now();
    while (!settled(view, started)) await nextFrame();
    window.ttViewer.shown.push({ at: performance.now(), camera });
    loading = false;
  };
  const unchanged = { __type__: "update" };
  window.ttViewer = {
    shown: [],  // time and camera of each file's first frame
    get loading() { return loading; },
    // Load one file at a time; of several that wait, only the latest is shown.
    async show(view, viewer, distance) {
      const number = ++latest;
      while (loading) {
        await nextFrame();
        if (number !== latest) return unchanged;
      }
      if (viewer.value && viewer.value.path === view.path) return unchanged;
      loading = true;
      // Loading a file resets the camera to camera_position, so pass the current position. The offset makes
      // it differ from the value that the viewer reported itself, which Gradio would ignore.
      const camera = [viewer.camera_position[0] + 1e-6, ...viewer.camera_position.slice(1)];
      if (view.placed) camera[2] = null;  // chosen by the viewer
      else if (placed) camera[2] = distance;
      placed = view.placed;
      follow(view, camera);
      const { root, api_prefix } = window.gradio_config;
      const value = { path: view.path, url: `${root}${api_prefix}/file=${view.path}`,
        orig_name: nameOf(view.path), meta: { _type: "gradio.FileData" } };
      return { __type__: "update", value, camera_position: camera };
    },
  };
