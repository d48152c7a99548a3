"""Compile all Numba kernels of the mesh package in advance: `python -m triplaneturbo.mesh.warmup`.

Numba compiles a kernel at its first call and caches the machine code on disk. That takes about ten seconds
in total, once per machine; `make setup` and app.py do it, so that the first request does not wait for it.
"""

from __future__ import annotations

import torch

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import thumbnail
from triplaneturbo.mesh.texture import bake
from triplaneturbo.mesh.uv.registry import available
from triplaneturbo.mesh.uv.unwrap import unwrap
from triplaneturbo.mesh.voxels import filled
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField


def _field() -> TriplaneField:
    config = GeneratorConfig(plane_channels=1, mlp_width=4)
    return TriplaneField(torch.zeros(6, 1, 1, 1), FieldDecoder(config))


def spiral_ramp() -> Mesh:
    """Return a ramp of two turns, which overlaps itself seen from above, so that its chart is split."""
    angles = torch.linspace(0, 4 * torch.pi, 33)
    ring = torch.stack((angles.cos(), angles.sin(), angles / 10), dim=1)
    vertices = torch.cat((ring, ring * torch.tensor((0.5, 0.5, 1.0))))
    first = torch.arange(32)
    corners = (first, first + 1, first + 34, first + 33)
    faces = torch.cat((torch.stack(corners[:3], dim=1), torch.stack((*corners[2:], first), dim=1)))
    return Mesh(vertices, faces)


def warmup() -> None:
    """Run small meshes (an octahedron and a spiral) through every compiled kernel."""
    vertices = torch.cat((torch.eye(3), -torch.eye(3)))
    faces = [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]
    for method in available():
        mesh = unwrap(Mesh(vertices, torch.tensor(faces)), method, 512)
    filled(vertices, torch.tensor(faces), 8)
    unwrap(spiral_ramp(), "fast", 512)
    thumbnail(bake(mesh, _field(), 512), size=32)


if __name__ == "__main__":
    warmup()
