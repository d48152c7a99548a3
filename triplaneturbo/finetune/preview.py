"""What a student makes of prompts while it learns, and pictures of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.errors import EmptySurfaceError
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import sheet
from triplaneturbo.mesh.processing.clean import drop_floaters, tidy
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.request import DEFAULT_FACES
from triplaneturbo.toyworld.scoring.generated import Generated
from triplaneturbo.toyworld.scoring.score_report import portrait, with_caption

_COARSE = 64  # nodes along each side of a preview's surface


@torch.no_grad()
def make(training_setup: TrainingSetup, prompt: str, seed: int = 0, coarse: bool = False) -> Generated | None:
    """What the student makes of a prompt now, as a user would get it; None: there is no surface.

    Args:
        coarse: for a picture alone, on a coarser grid.
    """
    generator, grid = training_setup.student.generator, training_setup.config.grid_resolution
    noise = generator.draw_latents(1, torch.Generator().manual_seed(seed))
    *_, latents = generator.denoise(
        noise, training_setup.student.embed([prompt]), training_setup.settings.steps
    )
    field = generator.field(generator.decode(latents)[0])
    try:
        surface = extract(field, min(_COARSE, grid) if coarse else grid)
    except EmptySurfaceError:
        return None
    raw = Mesh(surface.vertices.float().cpu(), surface.faces.cpu())
    mesh, _ = drop_floaters(tidy(raw))
    mesh, _ = simplify(mesh, DEFAULT_FACES)

    def rgb(points: Tensor) -> Tensor:
        with torch.no_grad():
            return field.rgb(points.to(field.device)).float().cpu()

    return Generated(mesh, raw, rgb)


def tile(training_setup: TrainingSetup, prompt: str) -> np.ndarray:
    """A picture [H, W, 3] of what the student makes of a prompt now, with the prompt below."""
    return with_caption(portrait(make(training_setup, prompt, coarse=True)), prompt)


def png(tiles: Sequence[np.ndarray], columns: int) -> bytes:
    """Pictures [H, W, 3] of one size, so many a row."""
    return encode_image(sheet(list(tiles), columns=min(columns, len(tiles)), gap=4), "png")
