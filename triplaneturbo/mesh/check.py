"""Whether a mesh is a solid that can be printed, and what there is to say of it: size, volume, pieces."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh, face_normals
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.mesh.processing.clean import components, weld

# A face lower than this share of the bounding box's diagonal has no area, as far as float32 can tell.
FLAT = 1e-8


@dataclass(frozen=True)
class Check:
    """What a slicer asks of a mesh. Vertices at the same place (on the seams of an atlas) count as one.

    Attributes:
        vertices, faces: how many; vertices after joining.
        components: connected pieces.
        border_edges: edges with a single face: there is a hole.
        crowded_edges: edges with more than two faces.
        turned_edges: edges with two faces that do not agree on what is outside.
        flat_faces: faces without area.
        size: extents of the bounding box along the model's x, y and z (z up), in metres.
        area: of the whole surface, in square metres.
        volume: enclosed, in cubic metres; negative if the surface is inside out, of no meaning if not closed.
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
        """Whether it has faces and none of them has a free edge."""
        return self.faces > 0 and self.border_edges == 0

    @property
    def manifold(self) -> bool:
        """Whether exactly two faces meet at every edge."""
        return self.closed and self.crowded_edges == 0

    @property
    def oriented(self) -> bool:
        """Whether all faces agree on what is outside."""
        return self.turned_edges == 0

    @property
    def printable(self) -> bool:
        """Whether it bounds a solid: manifold and oriented, no face without area, a volume above 0."""
        return self.manifold and self.oriented and self.flat_faces == 0 and self.volume > 0

    @property
    def sentence(self) -> str:
        """Whether it can be printed and, if not, all reasons why."""
        if self.printable:
            pieces = "one piece" if self.components == 1 else f"{self.components} pieces"
            size = " x ".join(_length(side) for side in self.size)
            return f"Ready for printing: a closed solid in {pieces}, {size}, {_volume(self.volume)}."
        if self.faces == 0:
            return "Not ready for printing: there are no faces."
        reasons = [
            _count(self.border_edges, "edge has no second face", "edges have no second face"),
            _count(self.crowded_edges, "edge has more than two faces", "edges have more than two faces"),
            _count(
                self.turned_edges,
                "edge has faces that disagree on what is outside",
                "edges have faces that disagree on what is outside",
            ),
            _count(self.flat_faces, "face has no area", "faces have no area"),
        ]
        # Where it is not closed and oriented, its volume says nothing.
        if not any(reasons) and not self.volume > 0:
            reasons.append("it encloses no volume" if self.volume == 0 else "it is inside out")
        return f"Not ready for printing: {', '.join(filter(None, reasons))}."


def check(mesh: Mesh, placement: Placement = AS_MODELLED) -> Check:
    """Look at a mesh as a printer's slicer does.

    Args:
        mesh: in model space, with or without an atlas.
        placement: the size that it is to have in metres; what else it says changes nothing.

    Raises:
        UserError: an impossible placement.
    """
    placement = placement.checked()
    joined = weld(mesh.vertices)
    faces = joined.index[mesh.faces].cpu()  # [F, 3]
    if len(faces) == 0:
        return Check(len(joined.first), 0, 0, 0, 0, 0, 0, (0.0, 0.0, 0.0), 0.0, 0.0)
    places = mesh.vertices[joined.first].detach().cpu().double()
    places = places - places[faces[0, 0]]  # sums of volumes lose fewer digits near the origin
    used = places[faces.reshape(-1)]
    extent = used.amax(0) - used.amin(0)
    scale = placement.scale(used)

    area = face_normals(places, faces)  # [F, 3], its length twice the face's area
    volume = (places[faces[:, 0]] * area).sum() / 6
    border, crowded, turned = edge_faults(faces)
    label = components(faces[:, :2].reshape(-1), faces[:, 1:].reshape(-1), len(places))
    x, y, z = (extent * scale).tolist()
    return Check(
        vertices=len(faces.unique()),
        faces=len(faces),
        components=len(label[faces[:, 0]].unique()),
        border_edges=border,
        crowded_edges=crowded,
        turned_edges=turned,
        flat_faces=int(flat_faces(places, faces).sum()),
        size=(x, y, z),
        area=float(area.norm(dim=1).sum() / 2) * scale**2,
        volume=float(volume) * scale**3,
    )


def flat_faces(vertices: Tensor, faces: Tensor) -> Tensor:
    """Which of the faces [F, 3] have no area, bool [F]; vertices [V, 3] in double precision."""
    corners = vertices[faces]  # [F, 3, 3]
    longest = (corners - corners.roll(1, 1)).norm(dim=-1).amax(1)
    used = corners.reshape(-1, 3)
    diagonal = (used.amax(0) - used.amin(0)).norm()
    return face_normals(vertices, faces).norm(dim=1) <= FLAT * diagonal * longest


def edge_faults(faces: Tensor) -> tuple[int, int, int]:
    """Edges of the faces [F, 3] with one face, with more than two, and with two that run the same way."""
    starts, ends = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)  # [3F] each
    keys = torch.minimum(starts, ends) * (int(faces.max()) + 1) + torch.maximum(starts, ends)
    keys, group, count = keys.unique(return_inverse=True, return_counts=True)
    way = torch.zeros_like(count).index_add(0, group, (starts < ends).long() * 2 - 1)
    turned = (count == 2) & (way != 0)
    return int((count == 1).sum()), int((count > 2).sum()), int(turned.sum())


def _count(number: int, one: str, many: str) -> str:
    return "" if number == 0 else f"{number} {one if number == 1 else many}"


def _length(metres: float) -> str:
    """A length as people say it: millimetres below 1 cm, centimetres below 1 m."""
    for unit, name in ((1.0, "m"), (0.01, "cm")):
        if metres >= unit:
            return f"{metres / unit:.3g} {name}"
    return f"{metres * 1000:.3g} mm"


def _volume(cubic_metres: float) -> str:
    if cubic_metres >= 0.1:
        return f"{cubic_metres:.3g} m³"
    litres = cubic_metres * 1e3
    return f"{litres:.3g} l" if litres >= 1 else f"{cubic_metres * 1e6:.3g} cm³"
