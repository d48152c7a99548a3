"""Conversion of checkpoints in latent-diffusion ("ldm") naming to vanilla diffusers networks.

Every key under a network's prefix must match a parameter by name and shape; other keys (text encoders,
schedules, discriminators) are ignored. No code in a checkpoint is ever executed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor, nn

from triplaneturbo.errors import UserError
from triplaneturbo.models.checkpoint_io import read_checkpoint

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
# The camera MLP is added to the time embedding, which diffusers supports as a class embedding.
_CAMERA, _CLASS = f"{UNET_PREFIX}camera_embed.", f"{UNET_PREFIX}label_emb.0."

State = dict[str, Tensor]


def read_ldm(path: Path) -> State:
    """Return the memory-mapped tensors of a checkpoint by name, top-level or under "state_dict".

    Raises:
        UserError: if the file is missing, truncated, not a checkpoint, or contains pickled code.
    """
    content = read_checkpoint(path, "a teacher's checkpoint", mapped=True)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise _wrong_checkpoint(path, "it contains no named tensors")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def build_unet(state: State, config: dict[str, Any], source: object) -> UNet2DConditionModel:
    """Build the U-Net under `model.diffusion_model.`: float32, frozen, camera MLP as class embedding.

    Args:
        state: tensors from `read_ldm`.
        config: of the `UNet2DConditionModel`, with class_embed_type "projection" if it takes cameras.
        source: name of the file in error messages.

    Raises:
        UserError: if a key is missing, unexpected or of another shape.
    """
    part = {
        name.replace(_CAMERA, _CLASS, 1): value
        for name, value in state.items()
        if name.startswith(UNET_PREFIX)
    }
    return _network(UNet2DConditionModel, part, convert_ldm_unet_checkpoint, config, source)


def build_vae(state: State, config: dict[str, Any], source: object) -> AutoencoderKL:
    """Build the autoencoder under `first_stage_model.`: float32, frozen; see `build_unet`."""
    part = {name: value for name, value in state.items() if name.startswith(VAE_PREFIX)}
    return _network(AutoencoderKL, part, convert_ldm_vae_checkpoint, config, source)


def _network(kind: type, part: State, convert: Callable, config: dict[str, Any], source: object) -> Any:
    try:
        converted: State = convert(dict(part), config)
    except (KeyError, ValueError, IndexError) as error:
        raise _wrong_checkpoint(source, f"{error} is missing for {kind.__name__}") from None
    with torch.device("meta"):
        network: nn.Module = kind(**config)
    expected = network.state_dict()
    wrong = next(
        (name for name in expected if name not in converted or converted[name].shape != expected[name].shape),
        None,
    )
    if wrong is not None:
        actual = tuple(converted[wrong].shape) if wrong in converted else "missing"
        raise _wrong_checkpoint(
            source, f"{wrong} should have shape {tuple(expected[wrong].shape)} and is {actual}"
        )
    if len(part) != len(expected):
        raise _wrong_checkpoint(
            source, f"its {kind.__name__} has {len(part)} tensors instead of {len(expected)}"
        )
    network.load_state_dict(
        {name: converted[name].float().contiguous() for name in expected}, strict=True, assign=True
    )
    return network.eval().requires_grad_(False)


def _wrong_checkpoint(source: object, why: str) -> UserError:
    return UserError(
        f"{source} is not a checkpoint of this teacher: {why}. Use the file that its authors released;"
        " `python -m triplaneturbo download --what teachers` downloads it."
    )
