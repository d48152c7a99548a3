"""How long each preset would learn the prompts, and in how much memory, and the settings as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from triplaneturbo.finetune.config import PRESETS, FinetuneConfig
from triplaneturbo.finetune.duration import Estimate
from triplaneturbo.ui.generate.panels import text
from triplaneturbo.utils.units import GB

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine

# What the page calls a preset; its Order is the run's matter.
LENGTHS = {"try": "Try", "short": "Short", "thorough": "Thorough"}
AS_SET = "As set"
# Settings that no preset names, and that change what a run takes.
_BESIDES = {"teachers", "renderings", "tuning", "rank"}
_NOTHING = Estimate(None, None, "")


def estimates(
    engine: Engine, learned: Sequence[str], held_out: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Estimate]:
    """By what the page calls it: of each preset, and, where the settings are none of these, of them.

    Args:
        learned, held_out: prompts.
        settings: of an Order, by its names; what cannot be is not looked at.
    """
    world = engine.model.config.world
    presets = {label: PRESETS[name](world) for name, label in LENGTHS.items()}
    rest = {name: settings[name] for name in _BESIDES & settings.keys()}
    rest |= {name: tuple(value) for name, value in rest.items() if isinstance(value, list)}

    def of(values: Mapping[str, Any]) -> Estimate:
        return engine.estimate_run(FinetuneConfig("x", tuple(learned), tuple(held_out), **{**rest, **values}))

    found = {label: of(preset) for label, preset in presets.items()}
    set_so = {name: settings[name] for name in presets[LENGTHS["try"]].keys() & settings.keys()}
    set_so["scored"], set_so["steps"] = settings.get("scored", 0), settings.get("steps", 0)
    if not any(preset.items() <= set_so.items() for preset in presets.values()) and all(
        isinstance(set_so[name], (int, float)) and set_so[name] >= 0
        for name in ("iterations", "batch", "scored", "steps", "preview_every")
    ):
        found[AS_SET] = of(set_so)
    return found


def panel(found: Mapping[str, Estimate]) -> str:
    """What the page shows of estimates: a cell each; what nothing is known of is a dash."""
    cells = "".join(
        f'<div title="{text(one.sentence)}"><dt>{text(label)}</dt><dd>{duration(one.seconds)}</dd>'
        f'<dd class="tt-soft">{one.words or memory(one.bytes)}</dd></div>'
        for label, one in ((label, found.get(label, _NOTHING)) for label in (*LENGTHS.values(), AS_SET))
    )
    return f'<dl class="tt-lengths" aria-label="How long, and memory">{cells}</dl>'


def duration(seconds: float | None) -> str:
    """About how long, to two digits: "4 min", "2.3 h", "12 h", "3 days"."""
    if seconds is None:
        return "–"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes / 60
    if hours < 9.95:
        return f"{hours:.1f} h"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def memory(size: int | None) -> str:
    """A size in bytes, in GB of 2^30."""
    return "–" if size is None else f"{size / GB:.1f} GB"
