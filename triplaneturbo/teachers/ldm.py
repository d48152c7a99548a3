"""Networks from files in latent-diffusion's naming ("ldm"), as vanilla diffusers classes.

Every key under a network's prefix must have its place and its shape there; what stands outside (text
encoders, schedules, discriminators) is not read. Nothing in a file is ever run.
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
# An mlp on the camera, added to the time embedding: diffusers knows it as the embedding of a class.
_CAMERA, _CLASS = f"{UNET_PREFIX}camera_embed.", f"{UNET_PREFIX}label_emb.0."

State = dict[str, Tensor]


def read_ldm(path: Path) -> State:
    """The tensors of a checkpoint by their names there, flat or under "state_dict"; mapped, not yet read.

    Raises:
        UserError: the file is missing, cut short, no checkpoint, or holds what only running it could make.
    """
    content = read_checkpoint(path, "a teacher's checkpoint", mapped=True)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise _refusal(path, "it holds no names with tensors")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def unet_from(state: State, config: dict[str, Any], source: object) -> UNet2DConditionModel:
    """The U-Net under `model.diffusion_model.`, float32, frozen, its camera embedding as a class embedding.

    Args:
        state: as `read_ldm` gives it.
        config: of the `UNet2DConditionModel`, with class_embed_type "projection" where it has cameras.
        source: what to call the file.

    Raises:
        UserError: a key is missing, left over or of another shape.
    """
    part = {
        name.replace(_CAMERA, _CLASS, 1): value
        for name, value in state.items()
        if name.startswith(UNET_PREFIX)
    }
    return _network(UNet2DConditionModel, part, convert_ldm_unet_checkpoint, config, source)


def vae_from(state: State, config: dict[str, Any], source: object) -> AutoencoderKL:
    """The autoencoder under `first_stage_model.`, float32, frozen; see `unet_from`."""
    part = {name: value for name, value in state.items() if name.startswith(VAE_PREFIX)}
    return _network(AutoencoderKL, part, convert_ldm_vae_checkpoint, config, source)


def _network(kind: type, part: State, convert: Callable, config: dict[str, Any], source: object) -> Any:
    try:
        converted: State = convert(dict(part), config)
    except (KeyError, ValueError, IndexError) as error:
        raise _refusal(source, f"it has no {error} for its {kind.__name__}") from None
    with torch.device("meta"):
        network: nn.Module = kind(**config)
    expected = network.state_dict()
    wrong = next(
        (name for name in expected if name not in converted or converted[name].shape != expected[name].shape),
        None,
    )
    if wrong is not None:
        found = tuple(converted[wrong].shape) if wrong in converted else "nothing"
        raise _refusal(source, f"{wrong} should be {tuple(expected[wrong].shape)} and is {found}")
    if len(part) != len(expected):
        raise _refusal(source, f"its {kind.__name__} has {len(part)} weights, not {len(expected)}")
    network.load_state_dict(
        {name: converted[name].float().contiguous() for name in expected}, strict=True, assign=True
    )
    return network.eval().requires_grad_(False)


def _refusal(source: object, why: str) -> UserError:
    return UserError(
        f"{source} is not this teacher: {why}; give the file that its authors released, which"
        " `python -m triplaneturbo download --what teachers` fetches."
    )
