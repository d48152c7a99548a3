"""Fused nearest-neighbour 2x upsampling and 3x3 convolution, with 4/9 of the multiplications."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.upsampling import Upsample2D
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn


def phase_kernels(weight: Tensor) -> Tensor:
    """Convert a 3x3 kernel [O, I, 3, 3] to 2x2 kernels on the low-resolution image [2, 2, O, I, 2, 2].

    The first two dimensions are the parity of the output row and column. After nearest-neighbour upsampling,
    three adjacent rows come from two rows of the input: for even rows, from the previous and the current row
    with weights (w0, w1 + w2); for odd rows, from the current and the next row with (w0 + w1, w2). The same
    holds for columns.
    """
    even = torch.stack((weight[:, :, 0], weight[:, :, 1] + weight[:, :, 2]), 2)
    odd = torch.stack((weight[:, :, 0] + weight[:, :, 1], weight[:, :, 2]), 2)
    rows = torch.stack((even, odd))  # [2, O, I, 2, 3]
    left = torch.stack((rows[..., 0], rows[..., 1] + rows[..., 2]), -1)
    right = torch.stack((rows[..., 0] + rows[..., 1], rows[..., 2]), -1)
    return torch.stack((left, right), 1)  # [2, 2, O, I, 2, 2]


def upsample_conv(x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
    """Compute conv3x3(nearest_upsample_x2(x)) with zero padding: x [B, I, H, W] -> [B, O, 2H, 2W]."""
    batch, _channels, height, width = x.shape
    size = (batch, kernels.shape[2], 2 * height, 2 * width)
    result = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for i in range(2):
        for j in range(2):
            # Even phases use the pixel above or left, odd ones that below or right.
            padded = F.pad(x, (1 - j, j, 1 - i, i))
            result[:, :, i::2, j::2] = F.conv2d(padded, kernels[i, j], bias)
    return result


class PhaseUpsample2D(Upsample2D):
    """diffusers' Upsample2D, fused if there are neither gradients nor an unmerged adapter."""

    _kernels: tuple[int, Tensor] | None = None

    def forward(self, hidden_states: Tensor, output_size: int | None = None, *args, **kwargs) -> Tensor:
        """[B, C, H, W] -> [B, C, 2H, 2W]."""
        conv = self.conv
        unmerged = isinstance(conv, LoraLayer) and not (conv.merged or conv.disable_adapters)
        if unmerged or output_size is not None or torch.is_grad_enabled():
            return super().forward(hidden_states, output_size, *args, **kwargs)
        base = conv.get_base_layer() if isinstance(conv, LoraLayer) else conv
        return upsample_conv(hidden_states, self._phase_kernels(base.weight), base.bias)

    def _phase_kernels(self, weight: Tensor) -> Tensor:
        address = weight.data_ptr()
        if self._kernels is None or self._kernels[0] != address:
            # Summed in float32, so that bfloat16 weights are rounded once.
            self._kernels = (address, phase_kernels(weight.float()).to(weight.dtype))
        return self._kernels[1]

    def clear_phase_kernels(self) -> None:
        """Clear the cached kernels; call it after an in-place change of the convolution's weight."""
        self._kernels = None


def use_phase_upsampling(model: nn.Module) -> None:
    """Use the fused computation in all upsampling layers of `model` that have a 3x3 convolution."""
    for module in model.modules():
        if (
            type(module) is Upsample2D
            and module.use_conv
            and not module.use_conv_transpose
            and module.norm is None
        ):
            module.__class__ = PhaseUpsample2D


def clear_phase_kernels(model: nn.Module) -> None:
    """Clear the cached kernels of all layers of `model`; call it after in-place changes of weights."""
    for module in model.modules():
        if isinstance(module, PhaseUpsample2D):
            module.clear_phase_kernels()
