"""How the browser sends a list of prompts: Gradio's own uploads are closed (gate.py)."""

from __future__ import annotations

from triplaneturbo.distill.corpora.prompt_list import MOST_BYTES, SUFFIXES

# The key, what came of it ("" where nothing was chosen, "kept", or a sentence on what was wrong).
UPLOAD = f"""async (key, _, share) => {{
  const picker = document.createElement("input");
  picker.type = "file";
  picker.accept = "{",".join(SUFFIXES)}";
  const file = await new Promise((done) => {{
    picker.onchange = () => done(picker.files[0]);
    picker.oncancel = () => done(null);
    picker.click();
  }});
  if (!file) return [key, "", share];
  const most = "A list of prompts has at most {MOST_BYTES >> 20} MB here.";
  if (file.size > {MOST_BYTES}) return [key, most, share];
  try {{
    const answer = await fetch(new URL("gradio_api/prompts", document.baseURI), {{
      method: "POST",
      headers: {{ "x-key": key, "x-name": encodeURIComponent(file.name) }},
      body: file,
    }});
    const said = await answer.json();
    return [key, answer.ok ? "kept" : String(said.detail), share];
  }} catch (error) {{
    return [key, "The list did not arrive; try again.", share];
  }}
}}"""
