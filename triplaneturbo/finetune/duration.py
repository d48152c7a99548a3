"""Estimates of a run's duration and memory before it starts. Imports nothing heavy.

The constants were measured on two otherwise idle cores of a Xeon with AMX.
"""

from __future__ import annotations

from dataclasses import dataclass

from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.utils.durations import format_estimate
from triplaneturbo.utils.units import GB

SHOWN = 8  # number of prompts in previews and the evaluation sheet
# Measured on an EPYC with bfloat16 instructions.
_STEP, _SCORED = 0.35, 0.23  # seconds per iteration, and per prompt and scored step
_DRAWN, _JUDGED, _PREVIEWED, _LOADED = 1.3, 1.3, 0.3, 8.0  # seconds per prompt; _LOADED: seconds once
_BYTES, _BYTES_EACH = 1.6e9, 0.1e9  # bytes of the process, and per prompt of a batch


@dataclass(frozen=True)
class Estimate:
    """Estimated duration and memory of a run.

    Attributes:
        seconds: total duration; None if unknown.
        bytes: peak memory; None if unknown.
        sentence: text for users.
        words: label to show instead of `bytes`; "" for none.
    """

    seconds: float | None
    bytes: int | None
    sentence: str
    words: str = ""


UNKNOWN = Estimate(None, None, "The duration is known after the first steps.")


def estimate_small(config: FinetuneConfig, steps: int) -> Estimate:
    """Estimate a run of a model of the built-in one's size on a CPU.

    Args:
        config: options of the run.
        steps: number of denoising steps of the model, used if the configuration has none.
    """
    scored = config.scored_steps or config.steps or steps
    evaluated = min(SHOWN, len(config.prompts) + len(config.held_out))
    previews = 1 + -(-config.iterations // config.preview_every) if config.preview_every else 0
    seconds = (
        config.iterations * (_STEP + _SCORED * config.batch * scored)
        + _DRAWN * len(config.prompts)
        + evaluated * (_JUDGED + _PREVIEWED * previews)
        + _LOADED
    )
    memory = int(_BYTES + _BYTES_EACH * config.batch)
    return Estimate(
        seconds, memory, f"About {format_estimate(seconds)} on two cores, and {memory / GB:.1f} GB."
    )
