"""The score of a fine-tuning run and its options, each shown with the scores that use it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from triplaneturbo.finetune.config import RANKS, FinetuneConfig
from triplaneturbo.teachers.settings import KINDS, WEIGHTINGS
from triplaneturbo.ui.generate.controls import UNQUEUED

# Options by their names in FinetuneConfig, and the scores that use them; "": each teacher's own, ASD.
USED_BY: dict[str, tuple[str, ...]] = {
    "asd_shift_level": ("", "asd"),
    "weighting": KINDS,
    "ism_stride": ("ism",),
    "ism_interval": ("ism",),
    "critic_rank": ("vsd",),
    "critic_rate": ("vsd",),
}
WHOLE = ("ism_stride", "ism_interval", "critic_rank")


def build() -> dict[str, Any]:
    """Create the controls in the current Gradio column; return them by their names in FinetuneConfig."""
    default = FinetuneConfig("x")
    score = gr.Dropdown(
        [("default", ""), *((kind.upper(), kind) for kind in KINDS)],
        value=default.score,
        label="Score",
        info="CSD, VSD and ISM need teachers that are diffusion networks.",
    )

    def shown(name: str) -> dict[str, Any]:
        return {"value": getattr(default, name), "visible": _visible(name, default.score), "min_width": 120}

    with gr.Row():
        options = {
            "asd_shift_level": gr.Dropdown(
                [("t (released code)", "t"), ("own (paper)", "own")],
                label="ASD shift level",
                info="Noise level of the shifted prediction.",
                **shown("asd_shift_level"),
            ),
            "weighting": gr.Dropdown(
                list(WEIGHTINGS),
                label="Weighting",
                info="level: the noise level alone; pixel: the error of each pixel.",
                **shown("weighting"),
            ),
            "ism_stride": gr.Number(
                label="ISM stride", info="Timesteps per step of inversion.", **shown("ism_stride")
            ),
            "ism_interval": gr.Number(
                label="ISM interval", info="Timesteps of its last step.", **shown("ism_interval")
            ),
            "critic_rank": gr.Dropdown(
                list(RANKS[1:]), label="Critic rank", info="Of its LoRA.", **shown("critic_rank")
            ),
            "critic_rate": gr.Number(label="Critic learning rate", **shown("critic_rate")),
        }
    score.change(visibility, score, list(options.values()), **UNQUEUED)
    return {"score": score, **options}


def visibility(score: str) -> list[Any]:
    """Return the updates that show the options of a score and hide the others, in the order of USED_BY."""
    return [gr.update(visible=_visible(name, score)) for name in USED_BY]


def used_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings without the options that the chosen score does not use, and that are thus not shown."""
    return {
        name: value
        for name, value in values.items()
        if values["score"] in USED_BY.get(name, (values["score"],))
    }


def _visible(name: str, score: str) -> bool | str:
    """Return the visibility of an option: "hidden" rather than False, so that the page sends its value."""
    return True if score in USED_BY[name] else "hidden"
