"""Small sizes for counting memory: the built-in model and teachers with small networks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.offloadable import BLOCKS
from triplaneturbo.distill import memory
from triplaneturbo.distill.lora_memory import lora_memory
from triplaneturbo.distill.memory import ModelSizes
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.teachers import mvdream, richdreamer, stable_diffusion

SMALL_SIZES = ModelSizes.read(SMALL)


def shrink_teachers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Body of a fixture in which all teachers have small networks and images."""
    sizes = {**BLOCKS, "layers_per_block": 1, "attention_head_dim": 2, "cross_attention_dim": 8,
             "class_embed_type": "projection", "projection_class_embeddings_input_dim": 16}  # fmt: skip
    monkeypatch.setattr(mvdream, "UNET", sizes)
    monkeypatch.setattr(richdreamer, "UNET", sizes)
    monkeypatch.setattr(stable_diffusion, "SIZE", 64)
    monkeypatch.setattr(
        mvdream, "VAE",
        {"block_out_channels": (32,) * 4, "down_block_types": ("DownEncoderBlock2D",) * 4,
         "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 1},
    )  # fmt: skip
    counts = memory.teacher, lora_memory
    for count in counts:
        count.cache_clear()
    yield
    for count in counts:
        count.cache_clear()
