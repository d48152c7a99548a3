"""Measures of a triangle mesh: uses of its edges and its volume."""

from __future__ import annotations

import torch
from torch import Tensor


def uses_of_edges(faces: Tensor) -> Tensor:
    """Count the faces of each undirected edge."""
    ends = torch.cat((faces[:, :2], faces[:, 1:], faces[:, [2, 0]])).sort(1)[0]
    return ends.unique(dim=0, return_counts=True)[1]


def volume(vertices: Tensor, faces: Tensor) -> float:
    """Signed volume: positive if the faces are counter-clockwise seen from outside."""
    a, b, c = vertices.double()[faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)
