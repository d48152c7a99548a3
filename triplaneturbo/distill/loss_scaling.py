"""Dynamic loss scaling for float16, as in mixed-precision training (arXiv 1710.03740).

Gradients that pass through frozen float16 weights underflow below 6e-8 and overflow above 65504. The loss is
therefore multiplied by a power of two before the backward pass, and the float32 gradients are divided by it.
If a gradient overflows, the step is skipped and the factor is halved; after many good steps it is doubled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from triplaneturbo.utils.distributed import CollectiveError

INITIAL_FACTOR = 2.0**14
GROWTH_INTERVAL = 500  # consecutive good steps before the factor doubles
MAX_SKIPPED = 20  # consecutive steps: from INITIAL_FACTOR down to 1/64


class LossScaler:
    """Dynamic loss scaler.

    Args:
        enabled: if False, all methods are no-ops and no step is skipped.

    Attributes:
        factor: current factor, a power of two.
        skipped: total number of skipped steps.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.factor = INITIAL_FACTOR if enabled else 1.0
        self.skipped = 0
        self._good = self._bad = 0  # consecutive steps

    @classmethod
    def for_dtype(cls, dtype: torch.dtype) -> LossScaler:
        """Return the scaler for frozen weights of a precision: enabled for float16 only."""
        return cls(dtype == torch.float16)

    def scale(self, loss: Tensor) -> Tensor:
        """Multiply the loss by the factor."""
        return loss * self.factor if self.enabled else loss

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Divide the gradients by the factor and update it.

        Call this after gradients were averaged over processes, so that all processes take the same decision.

        Returns:
            Whether to do the optimizer step. If not, gradients are set to None.

        Raises:
            CollectiveError: if too many consecutive steps overflow.
        """
        if not self.enabled:
            return True
        trained = [p for p in parameters if p.grad is not None]
        for p in trained:
            assert p.grad is not None
            p.grad.div_(self.factor)
        # One sum over all gradients, so that a GPU is synchronized once.
        total = sum(p.grad.abs().sum(dtype=torch.float64) for p in trained if p.grad is not None)
        if math.isfinite(float(total)):
            self._good, self._bad = self._good + 1, 0
            if self._good == GROWTH_INTERVAL:
                self.factor, self._good = self.factor * 2, 0
            return True
        self.factor, self._good, self._bad = self.factor / 2, 0, self._bad + 1
        self.skipped += 1
        for p in trained:
            p.grad = None
        if self._bad == MAX_SKIPPED:
            raise CollectiveError(  # collective: gradients are the same in all processes
                f"The gradients overflowed float16 in {MAX_SKIPPED} consecutive steps: resume from the last "
                f"checkpoint with a lower learning rate, or use bfloat16 or float32 for the frozen weights."
            )
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the scaler."""
        return {"factor": self.factor, "skipped": self.skipped, "good": self._good, "bad": self._bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`; no-op if scaling is disabled."""
        if self.enabled:
            self.factor, self.skipped = state["factor"], state["skipped"]
            self._good, self._bad = state["good"], state["bad"]


NO_SCALING = LossScaler(enabled=False)
