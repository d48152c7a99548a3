  // The viewer (Babylon, in Gradio 6) raises an error if a file arrives while it still loads the previous one,
  // and does not report when it is ready. It is ready once the file has arrived and a draw call covers as many
  // vertices as the file has: the previous mesh is disposed of before the new file is fetched.
  const LONGEST = 120000;  // milliseconds, after which a file that is never drawn is given up
  const drawn = new Map();  // number of corners -> when so many were drawn last
  const arrived = new Map();  // file name -> when its bytes were there, and whether that failed
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
  const nameOf = (path) => path.split(/[\/]/).pop();
  new PerformanceObserver((list) => {
    for (const { name, responseEnd, responseStatus } of list.getEntries()) {
      if (!name.includes("/file=")) continue;
      arrived.set(nameOf(decodeURI(name)), { at: responseEnd, failed: responseStatus >= 400 });
    }
  }).observe({ type: "resource" });
  const frame = () => new Promise((done) => setTimeout(done, 16));
  const settled = (view, begun) => {
    const file = arrived.get(nameOf(view.path));
    if (performance.now() - begun > LONGEST) return true;
    if (!file || file.at < begun) return false;
    return file.failed || (drawn.get(view.corners) || 0) > file.at;
  };
  let latest = 0;
  let loading = false;
  let placed = false;
  const follow = async (view, camera) => {
    const begun = performance.now();
    while (!settled(view, begun)) await frame();
    window.ttViewer.shown.push({ at: performance.now(), camera });
    loading = false;
  };
  const same = { __type__: "update" };
  window.ttViewer = {
    shown: [],  // when each file was drawn first, and from where
    get loading() { return loading; },
    // One file at a time, however slow the viewer is; of those that wait, only the latest is shown.
    async show(view, viewer, distance) {
      const mine = ++latest;
      while (loading) {
        await frame();
        if (mine !== latest) return same;
      }
      if (viewer.value && viewer.value.path === view.path) return same;
      loading = true;
      // A new file moves the camera to where it was told to be: that is where it stands now, then. The very
      // numbers that it has told would pass for its own echo, and not be kept for the new file.
      const camera = [viewer.camera_position[0] + 1e-6, ...viewer.camera_position.slice(1)];
      if (view.placed) camera[2] = null;  // the viewer's own choice
      else if (placed) camera[2] = distance;
      placed = view.placed;
      follow(view, camera);
      const { root, api_prefix } = window.gradio_config;
      const value = { path: view.path, url: `${root}${api_prefix}/file=${view.path}`,
        orig_name: nameOf(view.path), meta: { _type: "gradio.FileData" } };
      return { __type__: "update", value, camera_position: camera };
    },
  };
