"""Estimated time and memory of each training preset, and of custom settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.duration import Estimate
from triplaneturbo.ui.generate.panels import text
from triplaneturbo.utils.durations import format_estimate
from triplaneturbo.utils.units import GB

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine

# Labels of the presets.
LENGTHS = {"try": "Try", "short": "Short", "thorough": "Thorough"}
CUSTOM = "Custom"
# Settings that no preset sets and that change the estimate.
_OTHER_SETTINGS = {"teachers", "renderings", "tuning", "rank"}
_UNKNOWN = Estimate(None, None, "")


def estimates(
    engine: Engine, learned: Sequence[str], held_out: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Estimate]:
    """Estimate each preset and, if the settings differ from all presets, the settings.

    Args:
        learned: training prompts.
        held_out: evaluation prompts.
        settings: by their names in FinetuneConfig; invalid ones are not estimated.

    Returns:
        Estimates by label.
    """
    presets = {label: engine.domain.presets[name] for name, label in LENGTHS.items()}
    rest = {name: settings[name] for name in _OTHER_SETTINGS & settings.keys()}
    rest |= {name: tuple(value) for name, value in rest.items() if isinstance(value, list)}

    def estimate(values: Mapping[str, Any]) -> Estimate:
        return engine.estimate_run(FinetuneConfig("x", tuple(learned), tuple(held_out), **{**rest, **values}))

    found = {label: estimate(preset) for label, preset in presets.items()}
    custom = {name: settings[name] for name in presets[LENGTHS["try"]].keys() & settings.keys()}
    custom["scored_steps"], custom["steps"] = settings.get("scored_steps", 0), settings.get("steps", 0)
    if not any(preset.items() <= custom.items() for preset in presets.values()) and all(
        isinstance(custom[name], (int, float)) and custom[name] >= 0
        for name in ("iterations", "batch", "scored_steps", "steps", "preview_every")
    ):
        found[CUSTOM] = estimate(custom)
    return found


def panel(found: Mapping[str, Estimate]) -> str:
    """Return the estimates as HTML, with dashes where none is known."""
    cells = "".join(
        f'<div title="{text(one.sentence)}"><dt>{text(label)}</dt>'
        f"<dd>{'–' if one.seconds is None else format_estimate(one.seconds)}</dd>"
        f'<dd class="tt-soft">{one.words or memory(one.bytes)}</dd></div>'
        for label, one in ((label, found.get(label, _UNKNOWN)) for label in (*LENGTHS.values(), CUSTOM))
    )
    return f'<dl class="tt-lengths" aria-label="Estimated time and memory">{cells}</dl>'


def memory(size: int | None) -> str:
    """Format a number of bytes in GB (2^30 bytes)."""
    return "–" if size is None else f"{size / GB:.1f} GB"
