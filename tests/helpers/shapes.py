"""Closed meshes with every kind of attribute, for the tests of file formats."""

import numpy as np
import torch

from triplaneturbo.mesh.mesh import Mesh

TURN = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # model axes to y up, front +z


def picture(height, width, seed=0):
    """A smooth picture with a little noise, uint8 [H, W, 3]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x * 6 / width + k) * np.cos(y * 5 / height - k) for k in range(3)]
    noise = np.random.default_rng(seed).normal(0, 3, (height, width, 3))
    return np.clip(127 + 100 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def ellipsoid(rows=12, columns=20):
    """Closed, wound outward, with a texture seam: [V, 3], faces, uv, tangents along u."""
    v, u = torch.meshgrid(torch.linspace(0, 1, rows + 1), torch.linspace(0, 1, columns + 1), indexing="ij")
    # The exact angles where the seam closes, so that its two sides are at the same place.
    around = torch.where(u == 1, torch.zeros_like(u), u) * 2 * torch.pi
    polar = v * torch.pi
    ring = torch.where((v == 0) | (v == 1), torch.zeros_like(v), polar.sin())
    vertices = torch.stack((0.9 * ring * around.cos(), 0.6 * ring * around.sin(), 0.4 * polar.cos()), dim=-1)
    tangents = torch.stack(
        (-around.sin(), around.cos(), torch.zeros_like(u), torch.full_like(u, -1.0)), dim=-1
    )
    index = torch.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    lower, upper = torch.stack((a, b, c), -1)[:-1], torch.stack((a, c, d), -1)[1:]
    faces = torch.cat((lower.reshape(-1, 3), upper.reshape(-1, 3)))
    uv = torch.stack((u, v), dim=-1)
    return vertices.reshape(-1, 3), faces, uv.reshape(-1, 2), tangents.reshape(-1, 4)


def textured(size=(64, 128), normal_map=False, rows=12, columns=20):
    vertices, faces, uv, tangents = ellipsoid(rows, columns)
    mesh = Mesh(vertices, faces, uv=uv, texture=picture(*size))
    if normal_map:
        mesh = mesh.replace(tangents=tangents, normal_map=picture(32, 32, seed=1))
    return mesh


def colored(rows=12, columns=20):
    vertices, faces, _, _ = ellipsoid(rows, columns)
    return Mesh(vertices, faces, colors=torch.rand(len(vertices), 3))


def tetrahedron():
    vertices = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0.0, 1, 0], [0.0, 0, 1]]) * 1e-3
    return Mesh(vertices, torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]))
