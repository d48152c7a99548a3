"""The view renderer against sphere tracing of the solid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes
from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.toyworld.scene.palette import ACCENT, COLORS, MAIN, paint
from triplaneturbo.toyworld.scene.solid import Builder, Solid
from triplaneturbo.toyworld.scene.solids import solid_of
from triplaneturbo.toyworld.scene.view_renderer import (
    NOTHING,
    PATTERNS,
    Views,
    colors,
    mesh,
    pattern_bits,
    pattern_color,
    see,
    shade,
)

SIZE = 40


def cameras() -> Cameras:
    return orbit([25.0, 160.0], [15.0, -30.0], [2.5, 2.7], 40.0)


def trace(solid: Solid, cameras: Cameras, size: int) -> Views:
    """Sphere-trace every ray in steps of half the distance."""
    c2w, fovy = cameras.c2w.double().numpy(), cameras.fovy.double().numpy()
    shape = (len(c2w), size, size)
    rows, columns = np.mgrid[:size, :size] + 0.5
    paint_, pattern = np.full(shape, NOTHING, np.uint8), np.zeros(shape, np.uint8)
    depth, normal = np.zeros(shape), np.zeros((*shape, 3))
    for v in range(len(c2w)):
        reach = np.tan(fovy[v] / 2)
        own = np.stack(
            ((2 * columns / size - 1) * reach, (1 - 2 * rows / size) * reach, -np.ones((size, size))), -1
        )
        rays = (own @ c2w[v, :3, :3].T).reshape(-1, 3)  # of length 1 along the view direction
        length = np.linalg.norm(rays, axis=1)
        along = np.full(len(rays), 1.2)
        for _ in range(150):
            distance = solid.distance(c2w[v, :3, 3] + along[:, None] * rays)
            along += np.where(along < 4, 0.5 * distance / length, 0)
        at = c2w[v, :3, 3] + along[:, None] * rays
        hit = (along < 4) & (solid.distance(at) < 1e-3)
        slope = np.stack([solid.distance(at + d) - solid.distance(at - d) for d in 1e-4 * np.eye(3)], -1)
        grid = hit.reshape(size, size)
        paint_[v][grid] = solid.paints(at[hit])
        pattern[v][grid] = pattern_bits(at[hit])
        depth[v][grid] = along[hit]
        normal[v][grid] = slope[hit] / np.linalg.norm(slope[hit], axis=1, keepdims=True)
    return Views(paint_, pattern, depth, normal)


@pytest.mark.parametrize(
    "what",
    [("house", "", "", 0), ("teapot", "tall", "", 2), ("duck", "", "box", 1)],
    ids=lambda what: what[0],
)
def test_views_match_the_slow_ray_tracer(what: tuple[str, str, str, int]) -> None:
    solid = solid_of(*what)
    found, wanted = see(solid, cameras(), SIZE), trace(solid, cameras(), SIZE)
    seen, traced = found.paint != NOTHING, wanted.paint != NOTHING
    assert traced.mean() > 0.1
    assert (seen != traced).mean() < 0.01
    flat = np.stack(
        [ndimage.maximum_filter(d, 3) - ndimage.minimum_filter(d, 3) < 0.12 for d in wanted.depth]
    )
    inner = np.stack([ndimage.binary_erosion(one) for one in traced]) & seen & flat
    assert inner.sum() > 0.4 * traced.sum()
    error = np.abs(found.depth.astype(float) - wanted.depth)[inner]
    assert np.median(error) < 2e-3
    assert np.quantile(error, 0.98) < 0.02
    assert (found.paint == wanted.paint)[inner].mean() > 0.97
    assert (found.pattern == wanted.pattern)[inner].mean() > 0.95
    normal = found.normal.astype(float) / 127
    np.testing.assert_allclose(np.linalg.norm(normal[seen], axis=1), 1, atol=0.01)
    assert ((normal * wanted.normal).sum(-1)[inner] > 0.97).mean() > 0.93
    nothing = ~seen
    assert (found.depth[nothing] == 0).all()
    assert (found.normal[nothing] == 0).all()
    assert (found.pattern[nothing] == 0).all()


def test_ball_is_rendered_exactly() -> None:
    b = Builder()
    b.sphere(0.8, paint="red")
    one = orbit(0.0, 0.0, 2.5, 40.0)
    views = see(b.solid(), one, 65)
    assert views.depth[0, 32, 32] == pytest.approx(1.7, abs=2e-3)
    assert views.normal[0, 32, 32].tolist() == [127, 0, 0]
    assert views.paint[0, 32, 32] == paint("red")
    across = np.tan(np.arcsin(0.8 / 2.5)) / np.tan(np.radians(20))
    assert (views.paint != NOTHING).mean() == pytest.approx(np.pi / 4 * across**2, rel=0.02)


def test_block_meshes_match_the_full_grid() -> None:
    """Only blocks near the surface are evaluated at every node; the mesh equals that of a full grid."""
    solid = solid_of("chair", "", "", 3)
    vertices, faces = mesh(solid)
    axis = np.linspace(-1, 1, 97)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    full, triangles = marching_cubes(torch.from_numpy(solid.distance(grid).reshape(97, 97, 97)).float())
    assert torch.equal(faces, triangles)
    torch.testing.assert_close(vertices, full)


def test_patterns_vary_along_their_axes() -> None:
    draw = np.random.default_rng(0).uniform(-0.8, 0.8, (20000, 3))
    bits = pattern_bits(draw)
    assert int(bits.max()) == 7
    for k in range(3):
        assert 0.15 < ((bits >> k) & 1).mean() < 0.6
    sideways = draw.copy()
    sideways[:, :2] = 0.3
    assert ((pattern_bits(sideways) & 1) == (bits & 1)).all()  # stripes go round
    spots = (bits >> 1 & 1).astype(bool)
    middles = np.concatenate([np.round(draw / 0.36) * 0.36, (np.floor(draw / 0.36) + 0.5) * 0.36], 1).reshape(
        -1, 2, 3
    )
    near = (np.linalg.norm(middles - draw[:, None], axis=2) < 0.33 * 0.36).any(1)
    np.testing.assert_array_equal(spots, near)


@pytest.mark.parametrize("modifier", ["", "tall", *PATTERNS])
def test_colours_are_looked_up(modifier: str) -> None:
    look_up = colors("red", "blue", modifier)
    for bits in range(8):
        second = modifier in PATTERNS and bits >> PATTERNS.index(modifier) & 1
        main = COLORS["white" if second else "red"]
        np.testing.assert_allclose(look_up[bits, MAIN] * 255, main, atol=1e-3)
        np.testing.assert_allclose(look_up[bits, ACCENT] * 255, COLORS["blue"], atol=1e-3)
        np.testing.assert_allclose(look_up[bits, paint("green")] * 255, COLORS["green"], atol=1e-3)
        assert (look_up[bits, NOTHING] == 0).all()


def test_pattern_colour_differs_from_the_main_colour() -> None:
    assert all(pattern_color(name) not in (name, "") and pattern_color(name) in COLORS for name in COLORS)


def test_shading_is_bounded() -> None:
    normal = torch.nn.functional.normalize(torch.randn(5000, 3), dim=1)
    toward = torch.tensor([0.6, 0.0, 0.8])
    light = shade(torch.ones(5000, 3), normal, toward)
    assert float(light.min()) >= 0.62
    assert float(light.max()) <= 1 + 1e-6
    assert float(shade(torch.ones(1, 3), torch.tensor([[0.0, 0, 1]]), torch.tensor([0.0, 0, 1])).max()) == 1
    down = shade(torch.full((1, 3), 0.5), torch.tensor([[0.0, 0, -1]]), toward)
    torch.testing.assert_close(down, torch.full((1, 3), 0.31))
