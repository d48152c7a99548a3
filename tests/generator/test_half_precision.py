"""In float16 the built-in model makes the planes and the mesh that it makes in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.mesh.distance import farthest
from triplaneturbo.generator.weights import load_model
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.sparse import extract
from triplaneturbo.models import SMALL

PROMPTS = ("a red mushroom", "a blue chair")


@pytest.mark.parametrize("prompt", PROMPTS)
@torch.no_grad()
def test_the_same_planes_and_mesh(prompt: str) -> None:
    made: list[tuple[Tensor, Mesh]] = []
    for kind in (torch.float32, torch.float16):
        model = load_model(SMALL, dtype=kind)
        generator = model.generator
        noise = generator.draw_latents(1, torch.Generator().manual_seed(0))
        *_, latents = generator.denoise(noise, model.text.embed([prompt]))
        planes = generator.decode(latents)[0]
        surface = extract(generator.field(planes), model.config.grid_resolution)
        made.append((planes, Mesh(surface.vertices, surface.faces)))
    (exact, surface), (rough, other) = made
    assert (rough - exact).norm() < 0.01 * exact.norm()
    cell = 2 / (load_model(SMALL).config.grid_resolution - 1)
    assert max(farthest(surface, other), farthest(other, surface)) < 0.5 * cell
    assert np.isfinite(rough.numpy()).all()
