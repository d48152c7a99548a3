"""Printability check: manifoldness, orientation, size, volume and connected components of a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh, face_normals
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.mesh.processing.clean import components, weld

# A face whose height is below this fraction of the bounding box's diagonal is degenerate: float32 positions
# cannot resolve its area.
DEGENERATE_HEIGHT = 1e-8


@dataclass(frozen=True)
class Check:
    """Properties of a mesh that matter for 3D printing.

    Vertices at the same position (on the seams of an atlas) count as one.

    Attributes:
        vertices: number of distinct vertices that the faces use.
        faces: number of faces.
        components: number of connected components.
        border_edges: boundary edges, with a single face: the surface has a hole.
        crowded_edges: non-manifold edges, with more than two faces.
        turned_edges: edges whose two faces have opposite orientations.
        flat_faces: degenerate faces, without area.
        size: extents of the bounding box along the model's x, y and z (z up), in metres.
        area: surface area, in square metres.
        volume: enclosed volume, in cubic metres; negative if the surface is inside out, meaningless if it is
            not closed.
    """

    vertices: int
    faces: int
    components: int
    border_edges: int
    crowded_edges: int
    turned_edges: int
    flat_faces: int
    size: tuple[float, float, float]
    area: float
    volume: float

    @property
    def closed(self) -> bool:
        """Whether the mesh has faces and no boundary edge."""
        return self.faces > 0 and self.border_edges == 0

    @property
    def manifold(self) -> bool:
        """Whether every edge has exactly two faces."""
        return self.closed and self.crowded_edges == 0

    @property
    def oriented(self) -> bool:
        """Whether all faces are oriented consistently."""
        return self.turned_edges == 0

    @property
    def printable(self) -> bool:
        """Whether the mesh bounds a solid: manifold, oriented, no degenerate face, a positive volume."""
        return self.manifold and self.oriented and self.flat_faces == 0 and self.volume > 0

    @property
    def sentence(self) -> str:
        """A sentence for users: whether the mesh can be printed and, if not, all reasons why."""
        if self.printable:
            pieces = "one piece" if self.components == 1 else f"{self.components} pieces"
            size = " x ".join(_length(side) for side in self.size)
            return f"Ready for printing: a closed solid in {pieces}, {size}, {_volume(self.volume)}."
        if self.faces == 0:
            return "Not ready for printing: the mesh has no faces."
        reasons = [
            _count(self.border_edges, "edge borders a hole", "edges border a hole"),
            _count(self.crowded_edges, "edge has more than two faces", "edges have more than two faces"),
            _count(
                self.turned_edges,
                "edge joins faces of opposite orientation",
                "edges join faces of opposite orientation",
            ),
            _count(self.flat_faces, "face has no area", "faces have no area"),
        ]
        # The volume of a surface that is not closed and oriented is meaningless.
        if not any(reasons) and not self.volume > 0:
            reasons.append("it encloses no volume" if self.volume == 0 else "it is inside out")
        return f"Not ready for printing: {', '.join(filter(None, reasons))}."


def check(mesh: Mesh, placement: Placement = AS_MODELLED) -> Check:
    """Check a mesh the way the slicer of a 3D printer does.

    Args:
        mesh: in model space, with or without texture coordinates.
        placement: gives the size in metres; its other values have no effect.

    Raises:
        UserError: the placement is invalid.
    """
    placement = placement.checked()
    welded = weld(mesh.vertices)
    faces = welded.index[mesh.faces].cpu()  # [F, 3]
    if len(faces) == 0:
        return Check(len(welded.first), 0, 0, 0, 0, 0, 0, (0.0, 0.0, 0.0), 0.0, 0.0)
    positions = mesh.vertices[welded.first].detach().cpu().double()
    positions = positions - positions[faces[0, 0]]  # sums of volumes are more precise near the origin
    used = positions[faces.reshape(-1)]
    extent = used.amax(0) - used.amin(0)
    scale = placement.scale(used)

    area = face_normals(positions, faces)  # [F, 3], of twice the face's area in length
    volume = (positions[faces[:, 0]] * area).sum() / 6
    border, crowded, turned = edge_faults(faces)
    label = components(faces[:, :2].reshape(-1), faces[:, 1:].reshape(-1), len(positions))
    x, y, z = (extent * scale).tolist()
    return Check(
        vertices=len(faces.unique()),
        faces=len(faces),
        components=len(label[faces[:, 0]].unique()),
        border_edges=border,
        crowded_edges=crowded,
        turned_edges=turned,
        flat_faces=int(flat_faces(positions, faces).sum()),
        size=(x, y, z),
        area=float(area.norm(dim=1).sum() / 2) * scale**2,
        volume=float(volume) * scale**3,
    )


def flat_faces(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return which of the faces [F, 3] have no area, bool [F], given vertices [V, 3] in float64."""
    corners = vertices[faces]  # [F, 3, 3]
    longest = (corners - corners.roll(1, 1)).norm(dim=-1).amax(1)
    used = corners.reshape(-1, 3)
    diagonal = (used.amax(0) - used.amin(0)).norm()
    return face_normals(vertices, faces).norm(dim=1) <= DEGENERATE_HEIGHT * diagonal * longest


def edge_faults(faces: Tensor) -> tuple[int, int, int]:
    """Count edges of the faces [F, 3] with one face, more than two, and two of opposite orientation."""
    starts, ends = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)  # [3F] each
    keys = torch.minimum(starts, ends) * (int(faces.max()) + 1) + torch.maximum(starts, ends)
    keys, group, count = keys.unique(return_inverse=True, return_counts=True)
    way = torch.zeros_like(count).index_add(0, group, (starts < ends).long() * 2 - 1)
    turned = (count == 2) & (way != 0)
    return int((count == 1).sum()), int((count > 2).sum()), int(turned.sum())


def _count(number: int, one: str, many: str) -> str:
    return "" if number == 0 else f"{number} {one if number == 1 else many}"


def _length(metres: float) -> str:
    """Format a length: in millimetres below 1 cm, in centimetres below 1 m."""
    for unit, name in ((1.0, "m"), (0.01, "cm")):
        if metres >= unit:
            return f"{metres / unit:.3g} {name}"
    return f"{metres * 1000:.3g} mm"


def _volume(cubic_metres: float) -> str:
    if cubic_metres >= 0.1:
        return f"{cubic_metres:.3g} m³"
    litres = cubic_metres * 1e3
    return f"{litres:.3g} l" if litres >= 1 else f"{cubic_metres * 1e6:.3g} cm³"
