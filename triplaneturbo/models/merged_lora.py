"""Training with the shared adapters folded into the weights: the same gradients from half the layers.

A low-rank pair beside every convolution doubles the layers to be walked through. But W + up down is one
weight: formed once an optimiser step, it serves all passes of that step, and its gradient G gives those of
the factors by the chain rule, d down = up^T G and d up = G down^T. The planes' own adapters stay live, as in
`merge`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from triplaneturbo.models.peta import PlaneLora
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.upsample import forget_kernels


class MergedLora:
    """The active adapter's shared low-rank pairs, folded between `fold` and `unfold`.

    Between the two, passes of the generator give exactly what they give outside (to rounding), and backward
    passes leave their gradients in the folded weights; `unfold` adds these to the factors' own gradients.

    Args:
        live: fold nothing. Beside weights of half precision: a change smaller than their rounding would be
            lost in them, and all that a young adapter makes is small.
    """

    def __init__(self, generator: TriplaneGenerator, live: bool = False) -> None:
        self.generator = generator
        self._layers = [
            layer
            for layer in generator.adapter_layers()
            if not live and not isinstance(layer, PlaneLora) and not layer.merged
        ]
        self._own = [layer.get_base_layer().weight for layer in self._layers]
        self._folded: list[nn.Parameter] = []

    def fold(self) -> None:
        """Form the weights from what base and adapter are now."""
        name = self.generator.active
        self._folded = []
        for layer, own in zip(self._layers, self._own, strict=True):
            down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
            with torch.no_grad():
                change = up.flatten(1) @ down.flatten(1) * layer.scaling[name]  # [out, in (* 3 * 3)]
                weight = own + change.view_as(own)
            self._folded.append(nn.Parameter(weight, requires_grad=down.requires_grad))
        self._enter(self._folded, [name])
        forget_kernels(self.generator)  # these weights may lie where the last ones lay

    def unfold(self) -> None:
        """Give the factors their gradients and the layers their own weights again."""
        name = self.generator.active
        self._enter(self._own, [])
        for layer, folded in zip(self._layers, self._folded, strict=True):
            if folded.grad is None:
                continue
            gradient = folded.grad.flatten(1) * layer.scaling[name]
            down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
            _add_gradient(down, up.detach().flatten(1).t() @ gradient)
            _add_gradient(up, gradient @ down.detach().flatten(1).t())
        self._folded = []

    @contextmanager
    def base(self) -> Iterator[UNet2DConditionModel]:
        """The U-Net as plain Stable Diffusion, merged or not; see `TriplaneGenerator.base`."""
        folded = self._folded
        if folded:
            self._enter(self._own, [])
        try:
            with self.generator.base() as unet:
                yield unet
        finally:
            if folded:
                self._enter(folded, [self.generator.active])

    def _enter(self, weights: list[nn.Parameter], merged: list[str]) -> None:
        for layer, weight in zip(self._layers, weights, strict=True):
            _set_weight(layer, weight)
            layer.merged_adapters = list(merged)


def _set_weight(layer: BaseTunerLayer, weight: nn.Parameter) -> None:
    layer.get_base_layer().weight = weight


def _add_gradient(parameter: nn.Parameter, gradient: torch.Tensor) -> None:
    gradient = gradient.view_as(parameter)
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
