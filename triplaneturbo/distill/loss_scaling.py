"""Loss scaling: gradients too small for float16 are computed a power of two larger, and made small again.

Beside frozen parts in float16 a gradient below 6e-8 is zero, and one above 65504 infinite. So the loss is
multiplied before its backward pass and the gradients, which are float32, are divided after it. Where one of
them has overflowed, the step is skipped and the factor halved; after many good steps it is doubled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from triplaneturbo.utils.distributed import CollectiveError

INITIAL_FACTOR = 2.0**14
GROWTH_INTERVAL = 500  # good steps
MAX_SKIPPED = 20  # in a row: from FIRST down to a 64th


class LossScaler:
    """The factor of a run.

    Args:
        on: whether the loss is scaled at all; off, nothing is changed and nothing skipped.

    Attributes:
        factor: on the loss, a power of two.
        skipped: steps that were skipped, in all.
    """

    def __init__(self, on: bool) -> None:
        self.on = on
        self.factor = INITIAL_FACTOR if on else 1.0
        self.skipped = 0
        self._good = self._bad = 0  # in a row

    @classmethod
    def beside(cls, dtype: torch.dtype) -> LossScaler:
        """The one that frozen parts of this precision need."""
        return cls(dtype == torch.float16)

    def up(self, loss: Tensor) -> Tensor:
        """What the backward pass is to begin with."""
        return loss * self.factor if self.on else loss

    @torch.no_grad()
    def down(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Divide the gradients; whether the step is to be done. If not, they are gone.

        To be called when processes have shared their gradients: what is not finite is so in all of them.

        Raises:
            Shared: a great many steps in a row would have to be skipped.
        """
        if not self.on:
            return True
        learning = [p for p in parameters if p.grad is not None]
        for p in learning:
            assert p.grad is not None
            p.grad.div_(self.factor)
        # One number for all, so that a GPU is waited for once.
        size = sum(p.grad.abs().sum(dtype=torch.float64) for p in learning if p.grad is not None)
        if math.isfinite(float(size)):
            self._good, self._bad = self._good + 1, 0
            if self._good == GROWTH_INTERVAL:
                self.factor, self._good = self.factor * 2, 0
            return True
        self.factor, self._good, self._bad = self.factor / 2, 0, self._bad + 1
        self.skipped += 1
        for p in learning:
            p.grad = None
        if self._bad == MAX_SKIPPED:
            raise CollectiveError(  # as gradients were shared, too
                f"The gradients overflow float16 in {MAX_SKIPPED} steps in a row: go on from the last "
                f"checkpoint with a lower rate, or keep the frozen parts in bfloat16 or float32."
            )
        return False

    def state(self) -> dict[str, Any]:
        """All that is needed to go on; see `load`."""
        return {"factor": self.factor, "skipped": self.skipped, "good": self._good, "bad": self._bad}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`; one without scaling is gone on with as it is."""
        if self.on:
            self.factor, self.skipped = state["factor"], state["skipped"]
            self._good, self._bad = state["good"], state["bad"]


NO_SCALING = LossScaler(on=False)
