"""Levels of detail: coarser versions of a mesh that share its atlas and its textures."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import smooth_normals, submesh
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.mesh.uv.unwrap import unwrap

FEWEST_FACES = 32
"""A level with fewer faces has no shape left that is worth drawing."""
_PROGRESS = 0.8  # largest share of the previous level's faces


def levels_of_detail(mesh: Mesh, count: int) -> list[Mesh]:
    """Return the mesh and its coarser versions, each with half the faces of the previous one.

    Args:
        mesh: without texture coordinates.
        count: number of levels with the mesh itself. There are fewer if a mesh has too few faces.
    """
    levels = [mesh]
    for level in range(1, count):
        budget = len(mesh.faces) >> level
        if budget < FEWEST_FACES:
            break
        coarser, _ = simplify(mesh, budget)
        if len(coarser.faces) > _PROGRESS * len(levels[-1].faces):
            break
        levels.append(coarser)
    return levels


def merge_levels(levels: Sequence[Mesh]) -> Mesh:
    """Return one mesh of all levels, with smooth normals; the faces keep their order."""
    counts = [len(level.vertices) for level in levels]
    starts = torch.tensor([0, *counts]).cumsum(0).tolist()
    return Mesh(
        torch.cat([level.vertices for level in levels]),
        torch.cat([level.faces + start for level, start in zip(levels, starts, strict=False)]),
        normals=torch.cat([smooth_normals(level.vertices, level.faces) for level in levels]),
    )


def unwrap_levels(levels: Sequence[Mesh], method: str, texture_size: int) -> Mesh:
    """Return one mesh of all levels with one atlas: see `unwrap`.

    A level has half the texels per length of the previous one, as it is seen from twice the distance, so that
    four levels take a third more of the atlas than one.
    """
    merged = merge_levels(levels)
    level = torch.repeat_interleave(torch.arange(len(levels)), torch.tensor([len(m.faces) for m in levels]))
    scale = 0.5 ** torch.arange(len(levels), dtype=torch.float64)
    of_vertex = torch.empty(len(merged.vertices), dtype=torch.int64)
    of_vertex[merged.faces.reshape(-1)] = level.repeat_interleave(3)
    # The levels are moved apart, since some methods join vertices at the same place.
    shrunk = merged.vertices.double() * scale[of_vertex, None]
    shrunk[:, 0] += 4.0 * of_vertex
    # The colours carry the original positions through the unwrapping, which duplicates vertices.
    unwrapped = unwrap(merged.replace(vertices=shrunk, colors=merged.vertices), method, texture_size)
    assert unwrapped.colors is not None
    return unwrapped.replace(vertices=unwrapped.colors, colors=None)


def split_levels(mesh: Mesh, levels: Sequence[Mesh]) -> Mesh:
    """Return the first level with the others as its `lods`, given a mesh of all with their textures."""
    parts, start = [], 0
    for level in levels:
        parts.append(submesh(mesh, mesh.faces[start : start + len(level.faces)]))
        start += len(level.faces)
    return parts[0].replace(lods=tuple(parts[1:]))
