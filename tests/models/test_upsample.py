"""Upsampling and convolution in one, against the two apart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from triplaneturbo.models.upsample import phase_kernels, upsample_conv


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8)])
def test_fused_upsampling_matches_upsampling_then_convolution(size: tuple[int, int]) -> None:
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    weight, bias = torch.randn(7, 5, 3, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    wanted = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, bias, padding=1)
    torch.testing.assert_close(upsample_conv(x, phase_kernels(weight), bias), wanted)
