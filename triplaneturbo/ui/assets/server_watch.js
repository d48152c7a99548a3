() => {
  // Probe the server only when there is a reason to: a failed request, or the end of the event stream.
  // include form_store.js
  const { root, api_prefix } = window.gradio_config;
  const fetchOriginal = window.fetch.bind(window);
  const reachable = async () => {
    try {
      const options = { cache: "no-store", signal: AbortSignal.timeout(10000) };
      return (await fetchOriginal(`${root}${api_prefix}/app_id`, options)).ok;
    } catch (unreachable) {
      return false;
    }
  };
  const running = () => document.querySelector("#status [data-state=running]") !== null;
  const openTab = '#rooms > .tab-wrapper [role=tab][aria-selected=true]';
  const { tab } = read();
  for (const button of document.querySelectorAll("#rooms > .tab-wrapper [role=tab]")) {
    if (tab && button.textContent === tab) button.click();
  }
  let interrupted = false;
  const showLost = () => {
    interrupted = running();
    document.body.classList.add("tt-lost");
    document.querySelector("#status .tt-status").outerHTML = __LOST__;
    const runStatus = document.querySelector("#run-status .tt-words");
    if (runStatus) runStatus.textContent = document.querySelector("#status .tt-words").textContent;
    const buttons = "#buttons button, #train-buttons button, #run-buttons button";
    for (const button of document.querySelectorAll(buttons)) button.disabled = true;
  };
  let probing = false;
  const probe = async () => {
    if (probing) return;
    probing = true;
    if (!(await reachable())) {
      showLost();
      while (!(await reachable())) await new Promise((done) => setTimeout(done, 1000));
      window.location.reload();  // a restarted server does not know this page
    }
    probing = false;
  };
  window.fetch = async (...args) => {
    const url = String((args[0] && args[0].url) || args[0]);
    if (!url.includes(api_prefix)) return fetchOriginal(...args);
    let response;
    try {
      response = await fetchOriginal(...args);
    } catch (error) {
      if (!error || error.name !== "AbortError") probe();
      throw error;
    }
    if (url.includes("/queue/data") && response.body) {
      const [copy, body] = response.body.tee();
      const { status, statusText, headers } = response;
      response = new Response(body, { status, statusText, headers });
      copy.pipeTo(new WritableStream()).then(probe, probe);
    }
    return response;
  };
  window.addEventListener("pagehide", () => {
    const form = read();
    // Without a server Gradio reports no more changes: read these fields from the page.
    const selectors = { prompt: "#prompt textarea", seed: "#seed input" };
    if (form.names) {
      for (const [name, selector] of Object.entries(selectors)) {
        const value = document.querySelector(selector).value;
        form.values[form.names.indexOf(name)] = name !== "seed" ? value : value === "" ? null : Number(value);
      }
    }
    const tab = document.querySelector(openTab)?.textContent;
    write({ ...form, tab, interrupted: interrupted || running() });
  });
}
