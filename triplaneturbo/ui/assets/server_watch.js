() => {
  // Probe the server only when there is a reason to: a failed request, or the end of the event stream.
  // include form_store.js
  const { root, api_prefix } = window.gradio_config;
  const ask = window.fetch.bind(window);
  const there = async () => {
    try {
      const how = { cache: "no-store", signal: AbortSignal.timeout(10000) };
      return (await ask(`${root}${api_prefix}/app_id`, how)).ok;
    } catch (gone) {
      return false;
    }
  };
  const running = () => document.querySelector("#status [data-state=running]") !== null;
  const open = '#rooms > .tab-wrapper [role=tab][aria-selected=true]';
  const { tab } = read();
  for (const one of document.querySelectorAll("#rooms > .tab-wrapper [role=tab]")) {
    if (tab && one.textContent === tab) one.click();
  }
  let interrupted = false;
  const lose = () => {
    interrupted = running();
    document.body.classList.add("tt-lost");
    document.querySelector("#status .tt-status").outerHTML = __LOST__;
    const told = document.querySelector("#run-status .tt-words");
    if (told) told.textContent = document.querySelector("#status .tt-words").textContent;
    for (const button of document.querySelectorAll("#buttons button, #train-buttons button, #run-buttons button")) button.disabled = true;
  };
  let doubting = false;
  const doubt = async () => {
    if (doubting) return;
    doubting = true;
    if (!(await there())) {
      lose();
      while (!(await there())) await new Promise((done) => setTimeout(done, 1000));
      window.location.reload();  // what answers now may know nothing of this page
    }
    doubting = false;
  };
  window.fetch = async (...given) => {
    const address = String((given[0] && given[0].url) || given[0]);
    if (!address.includes(api_prefix)) return ask(...given);
    let answer;
    try {
      answer = await ask(...given);
    } catch (error) {
      if (!error || error.name !== "AbortError") doubt();
      throw error;
    }
    if (address.includes("/queue/data") && answer.body) {
      const [own, others] = answer.body.tee();
      const { status, statusText, headers } = answer;
      answer = new Response(others, { status, statusText, headers });
      own.pipeTo(new WritableStream()).then(doubt, doubt);
    }
    return answer;
  };
  window.addEventListener("pagehide", () => {
    const kept = read();
    // Without a server Gradio tells of no change any more.
    const typed = { prompt: "#prompt textarea", seed: "#seed input" };
    if (kept.names) {
      for (const [name, place] of Object.entries(typed)) {
        const value = document.querySelector(place).value;
        kept.values[kept.names.indexOf(name)] = name !== "seed" ? value : value === "" ? null : Number(value);
      }
    }
    const tab = document.querySelector(open)?.textContent;
    write({ ...kept, tab, interrupted: interrupted || running() });
  });
}
