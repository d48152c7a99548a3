"""Reading the mesh that a user wants to refine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.frame import Frame
from triplaneturbo.mesh.io.reader import load_mesh
from triplaneturbo.mesh.io.untrusted import load_untrusted
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.placement import UNITS
from triplaneturbo.request import shown

SUFFIXES = (".glb", ".obj", ".ply", ".stl", ".off")
MOST_FACES = 1_000_000
MOST_BYTES = 1 << 30
UPLOAD_MOST_FACES = 200_000


@dataclass(frozen=True)
class GivenMesh:
    """A mesh to refine.

    Attributes:
        mesh: its positions have the units and axes of a GLB: metres, y up in the file, z up here.
        digest: sha256 of the file, which must be the same on resume.
    """

    mesh: Mesh
    digest: str


def read_given_mesh(path: str | os.PathLike[str]) -> GivenMesh:
    """Read a GLB, OBJ, PLY, STL or OFF file. STL has millimetres, as slicers read it.

    Raises:
        UserError: the file is missing, of another format, broken, too large, or has no surface.
    """
    return _read(path, MOST_FACES, load_mesh)


def read_uploaded_mesh(path: str | os.PathLike[str]) -> GivenMesh:
    """Read a mesh of an unknown sender; see `read_given_mesh` and `mesh.io.untrusted`.

    Raises:
        UserError: also if the file refers to others.
    """
    return _read(path, UPLOAD_MOST_FACES, lambda place: load_untrusted(place, UPLOAD_MOST_FACES))


def _read(path: str | os.PathLike[str], most_faces: int, load: Callable[[Path], Mesh | None]) -> GivenMesh:
    place = Path(path).expanduser()
    name = shown(str(path))
    if place.suffix.lower() not in SUFFIXES:
        raise UserError(f"Cannot read {name} as a mesh; use a file that ends in {', '.join(SUFFIXES)}.")
    try:
        size = place.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{name} has {size / 1e9:.1f} GB; reduce the mesh to at most 1 GB.")
        digest = hashlib.sha256(place.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {name}: {(error.strerror or 'error').lower()}.") from None
    mesh = load(place)
    if mesh is None or not len(mesh.faces):
        raise UserError(f"{name} has no faces; a point cloud cannot be refined, so export it as a mesh.")
    if len(mesh.faces) > most_faces:
        raise UserError(
            f"{name} has {len(mesh.faces):,} faces; reduce it to at most {most_faces:,}, for example with"
            " Blender's Decimate modifier."
        )
    if int(mesh.faces.min()) < 0 or int(mesh.faces.max()) >= len(mesh.vertices):
        raise UserError(f"{name} has faces whose vertices are missing; export it again.")
    if place.suffix.lower() == ".stl":
        mesh = mesh.replace(vertices=mesh.vertices * UNITS["mm"])
    Frame.of(mesh)
    return GivenMesh(mesh, digest)
