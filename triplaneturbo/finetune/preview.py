"""Previews: meshes and images of a student's current state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.errors import EmptySurfaceError
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.preview import sheet
from triplaneturbo.mesh.processing.clean import drop_floaters, tidy
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.request import DEFAULT_FACES
from triplaneturbo.toyworld.scoring.generated import Generated
from triplaneturbo.toyworld.scoring.score_report import portrait, with_caption

_PREVIEW_RESOLUTION = 64  # grid resolution of a preview's mesh


@torch.no_grad()
def generate(
    training_setup: TrainingSetup, prompt: str, seed: int = 0, coarse: bool = False
) -> Generated | None:
    """Generate a mesh with the current student; None if the surface is empty.

    Args:
        coarse: use a coarser grid, sufficient for previews.
    """
    generator, grid = training_setup.student.generator, training_setup.config.grid_resolution
    noise = generator.draw_latents(1, torch.Generator().manual_seed(seed))
    *_, latents = generator.denoise(
        noise, training_setup.student.embed([prompt]), training_setup.settings.steps
    )
    field = generator.field(generator.decode(latents)[0])
    try:
        surface = extract(field, min(_PREVIEW_RESOLUTION, grid) if coarse else grid)
    except EmptySurfaceError:
        return None
    raw = surface.mesh()
    mesh, _ = drop_floaters(tidy(raw))
    mesh, _ = simplify(mesh, DEFAULT_FACES)

    def rgb(points: Tensor) -> Tensor:
        with torch.no_grad():
            return field.rgb(points.to(field.device)).float().cpu()

    return Generated(mesh, raw, rgb)


def preview_tile(training_setup: TrainingSetup, prompt: str) -> np.ndarray:
    """Render the student's current mesh of a prompt with the prompt below: [H, W, 3]."""
    return with_caption(portrait(generate(training_setup, prompt, coarse=True)), prompt)


def encode_grid(tiles: Sequence[np.ndarray], columns: int) -> bytes:
    """Encode images [H, W, 3] of the same size as a PNG grid."""
    return encode_image(sheet(list(tiles), columns=min(columns, len(tiles)), gap=4), "png")
