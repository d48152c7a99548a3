"""Mixed-precision LoRA: float32 adapters on a base in half precision.

peft casts activations to the dtype of the factors, so float32 factors would copy and multiply every
activation in float32. Here the small factors are cast to the dtype of the activations instead; their
gradients stay in float32.
"""

from __future__ import annotations

import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from triplaneturbo.models.peta import PlaneLora


class MixedPrecisionLinear(nn.Linear):
    """A linear layer that computes in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class MixedPrecisionConv2d(nn.Conv2d):
    """A convolution that computes in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H', W']."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return self._conv_forward(x, self.weight.to(x.dtype), bias)


def use_mixed_precision_lora(layer: BaseTunerLayer) -> None:
    """Make the factors of an adapted layer compute in the dtype of the layer's input."""
    layer.cast_input_dtype_enabled = False
    if isinstance(layer, PlaneLora):
        return  # casts its factors in its own forward
    for factors in (layer.lora_A, layer.lora_B):
        for factor in factors.values():
            factor.__class__ = MixedPrecisionConv2d if isinstance(factor, nn.Conv2d) else MixedPrecisionLinear
