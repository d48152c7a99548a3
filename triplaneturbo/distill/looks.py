"""Pictures of what a student makes of prompts while it learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from triplaneturbo.distill.lesson import Lesson
from triplaneturbo.errors import EmptySurfaceError
from triplaneturbo.mesh.clean import drop_floaters, tidy
from triplaneturbo.mesh.formats.common import encode_image
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import sheet
from triplaneturbo.mesh.sparse import extract
from triplaneturbo.world.made import Made
from triplaneturbo.world.score_report import portrait, with_caption

_GRID = 64  # nodes along each side of a preview's surface


@torch.no_grad()
def make(lesson: Lesson, prompts: Sequence[str], seed: int = 0) -> list[Made | None]:
    """What the student makes of prompts now, None where that is nothing."""
    generator = lesson.student.generator
    made: list[Made | None] = []
    for prompt in prompts:
        noise = generator.draw_latents(1, torch.Generator().manual_seed(seed))
        *_, latents = generator.denoise(noise, lesson.student.embed([prompt]), lesson.settings.steps)
        field = generator.field(generator.decode(latents)[0])
        try:
            surface = extract(field, min(_GRID, lesson.config.grid_resolution))
        except EmptySurfaceError:
            made.append(None)
            continue
        raw = Mesh(surface.vertices.float().cpu(), surface.faces.cpu())
        mesh, _ = drop_floaters(tidy(raw))

        def rgb(points: Tensor, field=field) -> Tensor:
            return field.rgb(points.to(field.device)).cpu()

        made.append(Made(mesh, raw, rgb))
    return made


def preview(lesson: Lesson, prompts: Sequence[str]) -> bytes:
    """A PNG of what the student makes of prompts now, four a row."""
    tiles = [
        with_caption(portrait(one), prompt)
        for one, prompt in zip(make(lesson, prompts), prompts, strict=True)
    ]
    return encode_image(sheet(tiles, columns=4, gap=4), "png")
