"""From an extracted surface to the mesh that users get: clean, simplify, unwrap and bake."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.lods import levels_of_detail, split_levels, unwrap_levels
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import Dropped, drop_floaters, tidy
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.mesh.processing.smooth import smooth
from triplaneturbo.mesh.processing.watertight import watertight
from triplaneturbo.mesh.texture import QueryableField, bake, paint
from triplaneturbo.mesh.uv.unwrap import unwrap
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request
from triplaneturbo.utils.generators import exhaust


@dataclass(frozen=True)
class Finished:
    """A finished mesh.

    Attributes:
        mesh: on the CPU, with a texture or, with `unwrap` "none", with vertex colours.
        dropped: the floaters that were removed.
        unsimplified: whether it has more faces than requested, because the simplified mesh could not be made
            watertight.
    """

    mesh: Mesh
    dropped: Dropped
    unsimplified: bool


def finish(
    surface: Mesh, field: QueryableField, request: Request, resolution: int
) -> Generator[str, None, Finished]:
    """Finish an extracted surface; yield the name of each stage as it begins: "clean", "unwrap", "texture".

    Args:
        surface: vertices and faces on the CPU, where sums over faces have a fixed order: results are
            reproducible.
        field: gives the colours and the normals.
        request: its options from `faces` to `watertight`, and `lods`, are used.
        resolution: nodes along each side of the grid that the surface was extracted on.

    Raises:
        UserError: an option is invalid, or the mesh cannot be made watertight.
    """
    yield "clean"
    mesh, dropped = drop_floaters(tidy(surface), request.floaters)
    mesh = smooth(mesh, request.smoothing)
    whole, unsimplified = mesh, False
    if request.faces is not None:
        mesh, _ = simplify(mesh, request.faces)
    if request.watertight:
        try:
            mesh = watertight(mesh)
        except UserError:
            if mesh is whole:
                raise
            mesh, unsimplified = watertight(whole), True

    levels = levels_of_detail(mesh, request.lods)
    if request.unwrap == "none":
        yield "texture"
        mesh, *coarser = [paint(level, field) for level in levels]
        return Finished(mesh.replace(lods=tuple(coarser)), dropped, unsimplified)
    yield "unwrap"
    if len(levels) == 1:
        mesh = unwrap(mesh, request.unwrap, request.texture_size)
    else:
        mesh = unwrap_levels(levels, request.unwrap, request.texture_size)
    yield "texture"
    cell = 2 / (resolution - 1)
    mesh = bake(mesh, field, request.texture_size, request.normal_map, cell)
    mesh = mesh if len(levels) == 1 else split_levels(mesh, levels)
    return Finished(mesh, dropped, unsimplified)


def finished_mesh(surface: Mesh, field: QueryableField, request: Request, resolution: int) -> Mesh:
    """Return the mesh of `finish` at once."""
    return exhaust(finish(surface, field, request, resolution)).mesh


def mesh_of_field(field: TriplaneField, request: Request) -> Mesh:
    """Extract the surface of a field and finish it; see `finish`.

    Args:
        field: its configuration gives the resolution if the request has none.

    Raises:
        EmptySurfaceError: there is no surface.
        UserError: an option is invalid, or the mesh cannot be made watertight.
    """
    resolution = request.resolution or field.fields.config.grid_resolution
    return finished_mesh(extract(field, resolution).mesh(), field, request, resolution)
