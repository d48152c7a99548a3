"""In float16 a model makes the planes and the mesh that it makes in float32."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.distance import cells_apart
from tests.helpers.parity_cases import by_prompt, case_files, load_case
from tests.helpers.parity_files import PARITY
from tests.helpers.small_mesh import planes_and_mesh
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.weights import load_model

PROMPTS = ("a red mushroom", "a blue chair")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_float16_planes_and_mesh_match_float32(prompt: str) -> None:
    models = [load_model(SMALL, dtype=kind) for kind in (torch.float32, torch.float16)]
    (exact, surface), (rough, other) = (planes_and_mesh(model, prompt) for model in models)
    assert (rough - exact).norm() < 0.01 * exact.norm()
    assert cells_apart(surface, other, models[0].config.grid_resolution) < 0.5
    assert np.isfinite(rough.numpy()).all()


RESOLUTION = 48
CASES = case_files(PARITY)


@torch.no_grad()
@pytest.mark.parametrize("file", CASES or [None], ids=lambda file: file.stem if file else "none")
def test_float16_matches_with_weights_of_the_public_implementation(file: Path | None, parity: Path) -> None:
    if file is None:
        pytest.skip(f"no case_*.safetensors beside an adapter.pth below {parity}/generator")
    generator, case = load_case(file)
    both = generator, deepcopy(generator)
    made = []
    for one, dtype in zip(both, (torch.float32, torch.float16), strict=True):
        one.merge()
        one.cast(dtype)
        *_, clean = one.denoise(by_prompt(case["initial_latents"]), case["text_embed"])
        planes = one.decode(clean)
        surfaces = [extract(one.field(alone), RESOLUTION) for alone in planes]
        made.append((planes, [Mesh(surface.vertices, surface.faces) for surface in surfaces]))
    (exact, meshes), (rough, others) = made
    assert (rough - exact).norm() < 0.01 * exact.norm()
    for mesh, other in zip(meshes, others, strict=True):
        # Random weights make tatters, of which the thinnest come and go with the rounding.
        assert cells_apart(mesh, other, RESOLUTION, share=0.99) < 0.5
