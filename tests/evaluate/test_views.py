"""Views for CLIP: their angles, framing and colours, and how they are stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.shapes import textured
from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.methods import MeshRecord
from triplaneturbo.evaluate.phases import Views
from triplaneturbo.evaluate.protocols import PRD, PROTOCOLS, PTD
from triplaneturbo.evaluate.views import (
    blank_views,
    decode_views,
    encode_views,
    framed,
    on_background,
    render_views,
)
from triplaneturbo.mesh.mesh import Mesh

SMALL = replace(PRD.views, size=64)
# Colour of each side of a cube, by its outward axis.
SIDES = {
    (1, 0, 0): (1.0, 0.0, 0.0),
    (0, 1, 0): (0.0, 1.0, 0.0),
    (-1, 0, 0): (0.0, 0.0, 1.0),
    (0, -1, 0): (1.0, 1.0, 0.0),
    (0, 0, 1): (0.2, 0.4, 0.6),
}


def cube() -> Mesh:
    vertices, colors = [], []
    for axis, color in SIDES.items():
        out = torch.tensor(axis, dtype=torch.float32)
        a = torch.roll(out, 1)
        b = torch.linalg.cross(out, a)
        corners = [out + s * a + t * b for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        vertices += corners
        colors += [torch.tensor(color)] * 4
    faces = [[4 * k + i for i in corner] for k in range(len(SIDES)) for corner in ((0, 1, 2), (0, 2, 3))]
    return Mesh(torch.stack(vertices), torch.tensor(faces), colors=torch.stack(colors))


def test_protocols_have_the_views_of_the_papers() -> None:
    assert PRD.views.angles == [(0, 15), (90, 15), (180, 15), (270, 15)]
    assert PRD.views.size == 512
    assert len(PTD.views.angles) == 16
    assert {elevation for _, elevation in PTD.views.angles} == {0, 45}
    assert PTD.views.radius == 4
    assert all(protocol.quoted and protocol.open_points for protocol in PROTOCOLS.values())


def test_views_show_their_side_unlit() -> None:
    views = render_views(cube(), SMALL)
    assert views.shape == (4, 64, 64, 4)
    for view, side in zip(views, list(SIDES)[:4], strict=True):
        assert view[40, 32].tolist() == [*_bytes(side), 255]
        assert view[0, 0, 3] == 0


def test_views_from_above_show_the_top() -> None:
    settings = replace(PTD.views, size=64)
    for view, (_, elevation) in zip(render_views(cube(), settings), settings.angles, strict=True):
        assert (_bytes((0, 0, 1)) in view[:32, 32, :3].tolist()) == (elevation == 45)


def _bytes(side: tuple[int, int, int]) -> list[int]:
    return [round(255 * value) for value in SIDES[side]]


def test_framing_is_invariant_to_position_and_scale() -> None:
    mesh = textured()
    moved = mesh.replace(vertices=mesh.vertices * 7 + torch.tensor([5.0, -3.0, 2.0]))
    stray = torch.cat((moved.vertices, torch.full((1, 3), 99.0)))  # in no face
    moved = moved.replace(vertices=stray, uv=torch.cat((mesh.uv, torch.zeros(1, 2))))
    bounds = framed(mesh, 0.9).bounds
    assert bounds.abs().max() == pytest.approx(0.9, abs=1e-6)
    np.testing.assert_allclose(framed(moved, 0.9).vertices[:-1], framed(mesh, 0.9).vertices, atol=1e-5)
    difference = np.abs(render_views(mesh, SMALL).astype(int) - render_views(moved, SMALL))
    assert difference.mean() < 0.1


def test_stored_views_are_lossless() -> None:
    views = render_views(textured(), SMALL)
    np.testing.assert_array_equal(decode_views(encode_views(views), "x"), views)
    with pytest.raises(UserError, match="damaged"):
        decode_views(encode_views(views)[:100], "x")


def test_key_depends_on_mesh_and_settings(tmp_path: Path) -> None:
    mesh = MeshRecord(tmp_path / "a.glb", "1")
    key = Views(tmp_path, PRD).key(mesh)
    assert key == Views(tmp_path, PRD).key(MeshRecord(tmp_path / "b.glb", "1"))
    assert key != Views(tmp_path, PRD).key(MeshRecord(tmp_path / "a.glb", "2"))
    assert key != Views(tmp_path, replace(PRD, views=SMALL)).key(mesh)


def test_background_is_behind_the_object() -> None:
    assert (on_background(blank_views(SMALL), (10, 20, 30)) == (10, 20, 30)).all()
    half = np.full((1, 1, 1, 4), (100, 100, 100, 128), dtype=np.uint8)
    assert on_background(half, (200, 0, 100)).ravel().tolist() == [150, 50, 100]
