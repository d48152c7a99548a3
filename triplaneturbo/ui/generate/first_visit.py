"""What the built-in model can make, as pictures in the empty viewer: a click generates one."""

from __future__ import annotations

import base64

from triplaneturbo.models.catalog import ROOT
from triplaneturbo.ui.generate.panels import text

# In the order of the pictures in SPRITE, which `benchmarks.picture` draws.
PROMPTS = (
    "a red mushroom",
    "a purple teapot",
    "a grey castle",
    "a green car",
    "a white rabbit",
    "a brown chair",
    "a blue rocket",
    "a yellow duck on a brown box",
    "a striped orange fish",
    "a white house with a blue roof",
    "a tall green cactus",
    "a spotted pink cat",
)
SPRITE = ROOT / "assets" / "first_visit.webp"


def gallery(model: str) -> str:
    """Return HTML of a button for each prompt; "" for other models than the built-in one."""
    if model != "small":
        return ""
    sprite = base64.b64encode(SPRITE.read_bytes()).decode()
    last = len(PROMPTS) - 1
    buttons = "".join(
        f'<button type="button" class="tt-first" data-prompt="{text(prompt)}">'
        f'<i style="background-position: {100 * number / last:.4f}% 0" aria-hidden="true"></i>'
        f"<span>{text(prompt)}</span></button>"
        for number, prompt in enumerate(PROMPTS)
    )
    return (
        f"<style>.tt-first i {{ background-image: url(data:image/webp;base64,{sprite}) }}</style>"
        f'<section class="tt-visit" aria-label="Examples"><p>Click one, or describe your own.</p>'
        f"<div>{buttons}</div></section>"
    )
