"""How long a run will take and how much memory, said before it begins. Imports nothing heavy.

Counted on two cores of a Xeon with AMX, with nothing beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.utils.units import GB

SHOWN = 8  # prompts that previews and the sheet show
_STEP, _SCORED = 0.35, 0.36  # seconds of an iteration, and more of each prompt and scored step
_DRAWN, _JUDGED, _PREVIEWED, _LOADED = 3.1, 4.0, 0.6, 20.0  # seconds a prompt; of the beginning
_BYTES, _BYTES_EACH = 1.6e9, 0.1e9  # of the process, and more of each prompt of a batch


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        seconds: from its beginning to its end; None: its first steps will tell.
        bytes: of memory at most; None likewise.
        sentence: for a person.
        words: what stands where there would be the bytes, "" if nothing is to be said.
    """

    seconds: float | None
    bytes: int | None
    sentence: str
    words: str = ""


UNKNOWN = Estimate(None, None, "How long it takes, the first steps will tell.")


def estimate(order: FinetuneConfig, world: bool, steps: int = 4) -> Estimate:
    """Of a run on a CPU.

    Args:
        world: whether the model is one of the small world; for others nothing is known beforehand.
        steps: K of the model, where the order names none.
    """
    if not world:
        return UNKNOWN
    scored = order.scored or order.steps or steps
    shown = min(SHOWN, len(order.prompts) + len(order.held_out))
    pictures = 1 + -(-order.iterations // order.preview_every) if order.preview_every else 0
    seconds = (
        order.iterations * (_STEP + _SCORED * order.batch * scored)
        + _DRAWN * len(order.prompts)
        + shown * (_JUDGED + _PREVIEWED * pictures)
        + _LOADED
    )
    size = int(_BYTES + _BYTES_EACH * order.batch)
    return Estimate(
        seconds, size, f"About {max(1, round(seconds / 60))} min on two cores, and {size / GB:.1f} GB."
    )
