"""Small checkpoints of the full model's teachers in released naming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from tests.helpers.parity_files import settings_of
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.teachers import mvdream, richdreamer, stable_diffusion
from triplaneturbo.teachers.ldm import build_unet, build_vae, read_ldm

FILES = {
    "mvdream": "sd-v2.1-base-4view.small.pt",
    "mvdream_vae": "first_stage.small.pt",
    "nd_mv": "nd_mv_ema.small.ckpt",
}


def sizes(folder: Path) -> dict:
    """Return the configuration of a network of the parity data."""
    return settings_of(folder)["diffusers_config"]


def small_unet(parity: Path, name: str) -> UNet2DConditionModel:
    """Return the U-Net of a teacher: "mvdream" or "nd_mv"."""
    folder = parity / name
    return build_unet(read_ldm(folder / FILES[name]), sizes(folder), FILES[name])


def small_vae(parity: Path) -> AutoencoderKL:
    """Return MVDream's autoencoder."""
    folder, name = parity / "mvdream_vae", FILES["mvdream_vae"]
    return build_vae(read_ldm(folder / name), sizes(folder), name)


def small_text(folder: Path, width: int) -> None:
    """Create a folder with a random text encoder and the built-in model's tokenizer."""
    (folder / "tokenizer").mkdir(parents=True)
    for file in (SMALL / "tokenizer").iterdir():
        (folder / "tokenizer" / file.name).write_bytes(file.read_bytes())
    config = CLIPTextConfig(
        vocab_size=2000,
        bos_token_id=0,
        eos_token_id=1,
        hidden_size=width,
        intermediate_size=64,
        num_attention_heads=2,
        num_hidden_layers=1,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


def small_teachers(parity: Path, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Create small checkpoints and RichDreamer's text encoder, and patch the package's sizes to match."""
    patch.setattr(mvdream, "UNET", sizes(parity / "mvdream"))
    patch.setattr(mvdream, "VAE", sizes(parity / "mvdream_vae"))
    patch.setattr(richdreamer, "UNET", sizes(parity / "nd_mv"))
    patch.setattr(stable_diffusion, "SIZE", 64)
    one = torch.load(parity / "mvdream" / FILES["mvdream"], weights_only=True)
    other = torch.load(parity / "mvdream_vae" / FILES["mvdream_vae"], weights_only=True)
    torch.save({**one, **other}, folder / "mvdream.pt")
    small_text(folder / "text", sizes(parity / "nd_mv")["cross_attention_dim"])
    return {
        "mvdream": folder / "mvdream.pt",
        "richdreamer": parity / "nd_mv" / FILES["nd_mv"],
        "text": folder / "text",
    }
