"""Adapters in float32 beside a base in half precision.

peft turns what it is given into its factors' own type, so that float32 factors would have every activation
copied and multiplied in float32. Here the factors follow: what is small is turned into what is large, at each
use, and their gradients come back in float32.
"""

from __future__ import annotations

import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from triplaneturbo.models.peta import PlaneLora


class MixedPrecisionLinear(nn.Linear):
    """A linear layer that computes in its input's type, whatever its weight's."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class MixedPrecisionConv2d(nn.Conv2d):
    """The same for a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H', W']."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return self._conv_forward(x, self.weight.to(x.dtype), bias)


def use_mixed_precision_lora(layer: BaseTunerLayer) -> None:
    """Have the factors of an adapted layer compute in the type of what the layer is given."""
    layer.cast_input_dtype_enabled = False
    if isinstance(layer, PlaneLora):
        return  # its own product follows already
    for factors in (layer.lora_A, layer.lora_B):
        for factor in factors.values():
            factor.__class__ = MixedPrecisionConv2d if isinstance(factor, nn.Conv2d) else MixedPrecisionLinear
