"""Meshes from trimesh and back, a ball, and meshes joined into one."""

import numpy as np
import torch
import trimesh

from triplaneturbo.mesh.mesh import Mesh


def from_trimesh(shape):
    return Mesh(
        torch.tensor(np.asarray(shape.vertices), dtype=torch.float32), torch.tensor(shape.faces).long()
    )


def to_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def ball(radius=0.5, at=(0.0, 0.0, 0.0), subdivisions=3):
    shape = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    shape.apply_translation(at)
    return from_trimesh(shape)


def joined(*meshes):
    """Concatenate meshes."""
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    faces = [m.faces + int(start) for m, start in zip(meshes, starts, strict=True)]
    return Mesh(torch.cat([m.vertices for m in meshes]), torch.cat(faces))
