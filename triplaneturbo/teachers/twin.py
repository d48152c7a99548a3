"""Copies of a U-Net that share its weight tensors but no adapters, hooks or attention processors."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn


def twin(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a frozen U-Net that shares the base weights of `unet`, which may have adapters.

    Adapters added to one do not affect the other. Moving or casting either U-Net ends the sharing.
    """
    with torch.device("meta"):
        copy = UNet2DConditionModel(**unet.config)
    copy.load_state_dict(base_weights(unet), strict=True, assign=True)
    return copy.eval().requires_grad_(False)


def base_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a model without adapters, under the names it has without adapters."""
    return {
        name.replace(".base_layer", ""): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
