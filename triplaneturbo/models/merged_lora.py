"""Training with merged LoRA: the same gradients with half the layers in the graph.

A low-rank branch beside every convolution doubles the number of layers. Instead, W + up @ down is computed
once per optimiser step and used by all forward passes of that step. Its gradient G yields those of the
factors by the chain rule: d_down = up^T G and d_up = G down^T. Per-plane adapters are not merged, as in
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
from triplaneturbo.models.upsample import clear_phase_kernels


class MergedLora:
    """Merge the active adapter's shared low-rank factors into the base weights between `merge` and `unmerge`.

    Forward passes in between give the same results up to rounding. Backward passes accumulate gradients in
    the merged weights; `unmerge` adds them to the gradients of the factors.

    Args:
        generator: the model to train.
        live: merge nothing. Use it with base weights in half precision, where updates below their rounding
            error, as at the start of training, would be lost.
    """

    def __init__(self, generator: TriplaneGenerator, live: bool = False) -> None:
        self.generator = generator
        self._layers = [
            layer
            for layer in generator.adapter_layers()
            if not live and not isinstance(layer, PlaneLora) and not layer.merged
        ]
        self._base_weights = [layer.get_base_layer().weight for layer in self._layers]
        self._merged_weights: list[nn.Parameter] = []

    def merge(self) -> None:
        """Compute the merged weights from the current base and adapter, and use them in the layers."""
        name = self.generator.active
        self._merged_weights = []
        for layer, base in zip(self._layers, self._base_weights, strict=True):
            down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
            with torch.no_grad():
                delta = up.flatten(1) @ down.flatten(1) * layer.scaling[name]  # [out, in (* 3 * 3)]
                weight = base + delta.view_as(base)
            self._merged_weights.append(nn.Parameter(weight, requires_grad=down.requires_grad))
        self._set_weights(self._merged_weights, [name])
        clear_phase_kernels(self.generator)  # the new weights may reuse the addresses of the previous ones

    def unmerge(self) -> None:
        """Add gradients to the factors and restore the base weights of the layers."""
        name = self.generator.active
        self._set_weights(self._base_weights, [])
        for layer, merged in zip(self._layers, self._merged_weights, strict=True):
            if merged.grad is None:
                continue
            gradient = merged.grad.flatten(1) * layer.scaling[name]
            down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
            _add_gradient(down, up.detach().flatten(1).t() @ gradient)
            _add_gradient(up, gradient @ down.detach().flatten(1).t())
        self._merged_weights = []

    @contextmanager
    def base(self) -> Iterator[UNet2DConditionModel]:
        """Yield the U-Net as plain Stable Diffusion, merged or not; see `TriplaneGenerator.base`."""
        merged = self._merged_weights
        if merged:
            self._set_weights(self._base_weights, [])
        try:
            with self.generator.base() as unet:
                yield unet
        finally:
            if merged:
                self._set_weights(merged, [self.generator.active])

    def _set_weights(self, weights: list[nn.Parameter], merged: list[str]) -> None:
        for layer, weight in zip(self._layers, weights, strict=True):
            _set_weight(layer, weight)
            layer.merged_adapters = list(merged)


def _set_weight(layer: BaseTunerLayer, weight: nn.Parameter) -> None:
    layer.get_base_layer().weight = weight


def _add_gradient(parameter: nn.Parameter, gradient: torch.Tensor) -> None:
    gradient = gradient.view_as(parameter)
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
