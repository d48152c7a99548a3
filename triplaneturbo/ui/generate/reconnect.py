"""A page that outlives its server: it says that it is gone, waits for it, and comes back as it was.

Gradio waits, too, but only where a request was under way; then it loads the page anew with nothing typed in,
and until then the bar of what was under way stands still.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.form import FIELDS

if TYPE_CHECKING:
    from triplaneturbo.ui.generate.controls import Controls

# What else than the fields of a request the page remembers, in the order of `_kept`.
BESIDES = ("size", "up", "pivot", "unit", "count", "live", "forming")

# The same tab alone has it again; where the browser keeps nothing, all works but this.
_STORE = """
  const read = () => {
    try { return JSON.parse(sessionStorage.getItem("triplaneturbo-form")) || {}; } catch (none) { return {}; }
  };
  const write = (kept) => {
    try { sessionStorage.setItem("triplaneturbo-form", JSON.stringify(kept)); } catch (no) { /* so be it */ }
  };
"""

SAVE = f"""(...values) => {{{_STORE}
  write({{ names: NAMES, values }});
}}"""

RESTORE = f"""() => {{{_STORE}
  const same = {{ __type__: "update" }};
  const {{ names, values, interrupted }} = read();
  // Another version of the page may have had other controls.
  const known = String(names) === String(NAMES);
  return [...(known ? values : NAMES.map(() => same)), interrupted ? BACK : same];
}}"""

# The server is asked whether it is there where there is reason to doubt it: a request that failed, or the end
# of the stream by which the page is told what happens.
WATCH = f"""() => {{{_STORE}
  const {{ root, api_prefix }} = window.gradio_config;
  const ask = window.fetch.bind(window);
  const there = async () => {{
    try {{
      const how = {{ cache: "no-store", signal: AbortSignal.timeout(10000) }};
      return (await ask(`${{root}}${{api_prefix}}/app_id`, how)).ok;
    }} catch (gone) {{
      return false;
    }}
  }};
  const running = () => document.querySelector("#status [data-state=running]") !== null;
  const open = '#rooms > .tab-wrapper [role=tab][aria-selected=true]';
  const {{ tab }} = read();
  for (const one of document.querySelectorAll("#rooms > .tab-wrapper [role=tab]")) {{
    if (tab && one.textContent === tab) one.click();
  }}
  let interrupted = false;
  const lose = () => {{
    interrupted = running();
    document.body.classList.add("tt-lost");
    document.querySelector("#status .tt-status").outerHTML = LOST;
    const told = document.querySelector("#run-status .tt-words");
    if (told) told.textContent = document.querySelector("#status .tt-words").textContent;
    for (const button of document.querySelectorAll(ENDED)) button.disabled = true;
  }};
  let doubting = false;
  const doubt = async () => {{
    if (doubting) return;
    doubting = true;
    if (!(await there())) {{
      lose();
      while (!(await there())) await new Promise((done) => setTimeout(done, 1000));
      window.location.reload();  // what answers now may know nothing of this page
    }}
    doubting = false;
  }};
  window.fetch = async (...given) => {{
    const address = String((given[0] && given[0].url) || given[0]);
    if (!address.includes(api_prefix)) return ask(...given);
    let answer;
    try {{
      answer = await ask(...given);
    }} catch (error) {{
      if (!error || error.name !== "AbortError") doubt();
      throw error;
    }}
    if (address.includes("/queue/data") && answer.body) {{
      const [own, others] = answer.body.tee();
      const {{ status, statusText, headers }} = answer;
      answer = new Response(others, {{ status, statusText, headers }});
      own.pipeTo(new WritableStream()).then(doubt, doubt);
    }}
    return answer;
  }};
  window.addEventListener("pagehide", () => {{
    const kept = read();
    // Without a server Gradio tells of no change any more.
    const typed = {{ prompt: "#prompt textarea", seed: "#seed input" }};
    if (kept.names) {{
      for (const [name, place] of Object.entries(typed)) {{
        const value = document.querySelector(place).value;
        kept.values[kept.names.indexOf(name)] = name !== "seed" ? value : value === "" ? null : Number(value);
      }}
    }}
    const tab = document.querySelector(open)?.textContent;
    write({{ ...kept, tab, interrupted: interrupted || running() }});
  }});
}}"""


def wire(page: gr.Blocks, asked: Controls) -> None:
    """Have the page watch its server, and remember in the browser what was typed and chosen."""
    kept = [*asked.fields, *asked.placing, asked.count, asked.live, asked.forming]
    words = {
        "NAMES": [*FIELDS, *BESIDES],
        "BACK": panels.back(),
        "LOST": panels.lost(),
        "ENDED": "#buttons button, #train-buttons button, #run-buttons button",
    }

    def script(text: str) -> str:
        for name, value in words.items():
            text = text.replace(name, json.dumps(value))
        return text

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    page.load(None, None, [*kept, asked.status], js=script(RESTORE), **quiet)
    page.load(None, None, None, js=script(WATCH), **quiet)
    gr.on([one.change for one in kept], None, kept, None, js=script(SAVE), **quiet)
