"""In float16 the built-in model makes the planes and the mesh that it makes in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.generator.small_mesh import planes_and_mesh
from tests.mesh.distance import cells_apart
from triplaneturbo.generator.weights import load_model
from triplaneturbo.models import SMALL

PROMPTS = ("a red mushroom", "a blue chair")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_same_planes_and_mesh(prompt: str) -> None:
    models = [load_model(SMALL, dtype=kind) for kind in (torch.float32, torch.float16)]
    (exact, surface), (rough, other) = (planes_and_mesh(model, prompt) for model in models)
    assert (rough - exact).norm() < 0.01 * exact.norm()
    assert cells_apart(surface, other, models[0].config.grid_resolution) < 0.5
    assert np.isfinite(rough.numpy()).all()
