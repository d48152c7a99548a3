"""Compile the mesh room's loops ahead of the first request: `python -m triplaneturbo.mesh.warmup`.

Numba compiles a loop at its first call and keeps the machine code on disk. That takes some ten seconds in
all, once on a machine; `make setup` and app.py see to it, so that nobody waits for it with a prompt in hand.
"""

from __future__ import annotations

import torch
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import thumbnail
from triplaneturbo.mesh.texture import bake
from triplaneturbo.mesh.uv.unwrap import METHODS, unwrap


class _Ball:
    def sdf(self, points: Tensor) -> Tensor:
        return points.norm(dim=1) - 1

    def rgb(self, points: Tensor) -> Tensor:
        return points.abs().clamp(0, 1)


def spiral() -> Mesh:
    """A ramp of two turns: it overlaps itself when seen from above, so its chart has to be taken apart."""
    angles = torch.linspace(0, 4 * torch.pi, 33)
    ring = torch.stack((angles.cos(), angles.sin(), angles / 10), dim=1)
    vertices = torch.cat((ring, ring * torch.tensor((0.5, 0.5, 1.0))))
    first = torch.arange(32)
    corners = (first, first + 1, first + 34, first + 33)
    faces = torch.cat((torch.stack(corners[:3], dim=1), torch.stack((*corners[2:], first), dim=1)))
    return Mesh(vertices, faces)


def warmup() -> None:
    """Take an octahedron, and a spiral as far as it goes, through everything that is compiled."""
    vertices = torch.cat((torch.eye(3), -torch.eye(3)))
    faces = [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]
    for method in METHODS:
        mesh = unwrap(Mesh(vertices, torch.tensor(faces)), method, 512)
    unwrap(spiral(), "fast", 512)
    thumbnail(bake(mesh, _Ball(), 512), size=32)


if __name__ == "__main__":
    warmup()
