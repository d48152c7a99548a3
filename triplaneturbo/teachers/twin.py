"""A plain U-Net on the weights of another: the same numbers in memory, no adapters, hooks or processors."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn


def twin(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A U-Net of its own that shares the base weights of `unet`, which may have adapters; frozen.

    What is added to the one does not reach the other. Moving or casting either ends the sharing.
    """
    with torch.device("meta"):
        copy = UNet2DConditionModel(**unet.config)
    copy.load_state_dict(base_weights(unet), strict=True, assign=True)
    return copy.eval().requires_grad_(False)


def base_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model without its adapters, by their names without any."""
    return {
        name.replace(".base_layer", ""): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
