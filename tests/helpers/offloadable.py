"""A small teacher's blocks, scenes and text embeddings, for the tests of offloading."""

from __future__ import annotations

import torch
from torch import Tensor

from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.scenes import SceneBatch

BLOCKS = {
    "block_out_channels": (32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


SCENES = SceneBatch(["a duck"], orbit([0.0, 90.0, 180.0, 270.0], 15.0, 1.6, 60.0), 4, torch.ones(1, 3))


def embed(texts: list[str]) -> Tensor:
    return torch.stack(
        [torch.randn(77, 8, generator=torch.Generator().manual_seed(len(text))) for text in texts]
    )
