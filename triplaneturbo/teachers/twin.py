"""A plain U-Net on the weights of another: the same numbers in memory, no adapters, hooks or processors."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel


def twin(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A U-Net of its own that shares the base weights of `unet`, which may have adapters; frozen.

    What is added to the one does not reach the other. Moving or casting either ends the sharing.
    """
    state = {
        name.replace(".base_layer", ""): value
        for name, value in unet.state_dict().items()
        if ".lora_" not in name
    }
    with torch.device("meta"):
        copy = UNet2DConditionModel(**unet.config)
    copy.load_state_dict(state, strict=True, assign=True)
    return copy.eval().requires_grad_(False)
