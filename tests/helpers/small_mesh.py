"""What the built-in model makes of a prompt in some precision, for the tests and for benchmarks/gpu.py."""

from __future__ import annotations

import torch
from torch import Tensor

from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.models.weights import Model


@torch.no_grad()
def planes_and_mesh(model: Model, prompt: str) -> tuple[Tensor, Mesh]:
    """The planes [6, C, H, W] of seed 0, and the surface on the CPU."""
    generator = model.generator
    noise = generator.draw_latents(1, torch.Generator().manual_seed(0))
    *_, latents = generator.denoise(noise, model.text.embed([prompt]))
    planes = generator.decode(latents)[0]
    surface = extract(generator.field(planes), model.config.grid_resolution)
    return planes, Mesh(surface.vertices.cpu(), surface.faces.cpu())
