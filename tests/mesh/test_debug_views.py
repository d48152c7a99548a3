"""Debug views: positions and colours of lines, normals, charts and texels."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.shapes import textured
from tests.helpers.trimeshes import ball, joined
from triplaneturbo.errors import UserError
from triplaneturbo.mesh import debug_views
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.render.cameras import frame, orbit
from triplaneturbo.render.colors import linear_to_srgb, srgb_to_linear

FRONT = orbit(0, 0, 4.0, 40.0)  # along -x: y to the right, z up


def triangle():
    """Facing the camera, 3 units a side or so."""
    return Mesh(torch.tensor([[0.0, -1, -1], [0.0, 1, -1], [0.0, 0, 1]]), torch.tensor([[0, 1, 2]]))


def slow_cover(corners, width, size):
    """Reference: the opacity of the lines along a face's edges at each supersampled pixel, in numpy."""
    y, x = np.mgrid[0:size, 0:size] + 0.5
    best = np.full((size, size), np.inf)
    inside = np.ones((size, size), bool)
    for k in range(3):
        (ax, ay), (bx, by) = corners[k], corners[(k + 1) % 3]
        side = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        (cx, cy) = corners[(k + 2) % 3]
        inside &= side * ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) >= 0
        best = np.minimum(best, np.abs(side) / np.hypot(bx - ax, by - ay))
    return np.clip(width + 0.5 - best, 0, 1), inside


def test_wireframe_matches_the_slow_twin():
    size = 96
    picture = debug_views.wireframe(triangle(), size, FRONT)
    places = FRONT.to_pixels(triangle().vertices, 2 * size, 2 * size)[0].numpy()
    cover, inside = slow_cover(places[:, :2] / places[:, 2:], 1.0, 2 * size)
    facing = np.abs(FRONT.rays(2 * size, 2 * size)[1][0, ..., 0].numpy())  # the triangle looks along x
    clay = srgb_to_linear(torch.tensor(debug_views._CLAY)).item() * (0.35 + 0.65 * facing)
    line = srgb_to_linear(torch.tensor(debug_views._LINE)).numpy()
    drawn = clay[..., None] * (1 - cover[..., None]) + line * cover[..., None]
    drawn = np.where(inside[..., None], drawn, 1.0)
    expected = drawn.reshape(size, 2, size, 2, 3).mean((1, 3))
    expected = (linear_to_srgb(torch.tensor(expected)) * 255).round().numpy()
    assert inside.mean() > 0.2
    # Rounding may put a pixel on the border on either side.
    assert (np.abs(picture - expected).max(2) <= 2).mean() > 0.995


def test_hidden_lines_are_not_drawn():
    outer = ball(0.8, subdivisions=2)
    assert np.array_equal(
        debug_views.wireframe(joined(outer, ball(0.3)), 128, FRONT), debug_views.wireframe(outer, 128, FRONT)
    )
    assert not np.array_equal(
        debug_views.wireframe(joined(outer, ball(0.3, (1.2, 0, 0))), 128, FRONT),
        debug_views.wireframe(outer, 128, FRONT),
    )


@pytest.mark.parametrize(("subdivisions", "least", "most"), [(2, 0.03, 0.6), (5, 0.0, 0.25)])
def test_dense_wireframes_stay_readable(subdivisions, least, most):
    """Return the dark fraction of the ball's centre: lines where faces are large, a tint where small."""
    picture = debug_views.wireframe(ball(0.8, subdivisions=subdivisions), 256, FRONT).astype(float).mean(2)
    middle = picture[96:160, 96:160]
    assert least <= (middle < 100).mean() <= most
    assert middle.mean() > 110
    assert middle.std() > 3


def test_normals_are_shown_as_colours():
    size = 129
    picture = debug_views.normals(ball(0.8, subdivisions=4), size, FRONT).astype(int)
    half = size // 2
    assert np.abs(picture[half, half] - [128, 128, 255]).max() <= 3  # toward the viewer
    rows, columns = np.nonzero((picture != 255).any(2))
    right, top = columns.max() - 1, rows.min() + 1
    assert picture[half, right, 0] > 240
    assert abs(picture[half, right, 1] - 128) < 12
    assert picture[top, half, 1] > 240
    assert abs(picture[top, half, 0] - 128) < 12
    assert (picture[0, 0] == 255).all()


def test_normals_include_the_normal_map():
    mesh = textured(normal_map=True).replace(normals=textured().vertices)
    plain = mesh.replace(normal_map=None, tangents=None)
    assert not np.array_equal(debug_views.normals(mesh, 64), debug_views.normals(plain, 64))
    assert np.array_equal(
        debug_views.normals(plain, 64), debug_views.normals(plain.replace(texture=None), 64)
    )
    level = mesh.replace(normal_map=np.full((8, 8, 3), (128, 128, 255), np.uint8))
    difference = debug_views.normals(level, 64).astype(int) - debug_views.normals(plain, 64)
    assert np.abs(difference).max() <= 3


def sheet():
    """Two charts: a square of two faces at the top left, and a single triangle at the bottom right."""
    uv = torch.tensor([[0.1, 0.1], [0.5, 0.1], [0.5, 0.5], [0.1, 0.5], [0.6, 0.9], [0.9, 0.9], [0.9, 0.6]])
    faces = torch.tensor([[0, 2, 1], [0, 3, 2], [4, 5, 6]])
    return Mesh(torch.nn.functional.pad(uv, (0, 1)), faces, uv=uv)


def test_atlas_has_chart_outlines_and_edges():
    size = 200
    picture = debug_views.atlas(sheet(), size).astype(int)

    def near(row, column, color):
        return np.abs(picture[row, column] - np.array(color) * 255).max() < 30

    for row, column in ((20, 60), (99, 60), (60, 20), (60, 99), (179, 150), (150, 179)):
        assert near(row, column, debug_views._OUTLINE), (row, column)
    clay = [debug_views._CLAY] * 3
    for row, column in ((40, 80), (80, 40), (170, 170)):
        assert near(row, column, clay), (row, column)
    # The edge within the square: darker than the clay, and not an outline.
    assert picture[60, 60].max() < 200
    assert not near(60, 60, debug_views._OUTLINE)
    for row, column in ((10, 10), (60, 130), (150, 60), (130, 130)):
        assert (picture[row, column] == 255).all()


def test_atlas_shows_the_texture_upright():
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8] = (255, 0, 0)
    image[8:] = (0, 0, 255)
    mesh = sheet().replace(texture=image)
    upper, lower = (
        debug_views.atlas(mesh, 200)[row, column].astype(int) for row, column in ((40, 80), (170, 170))
    )
    assert upper[0] > upper[2] + 60
    assert lower[2] > lower[0] + 60
    assert min(upper.min(), lower.min()) > 90


def test_texture_is_shown_at_most_at_its_size():
    mesh = textured((64, 128))
    assert np.array_equal(debug_views.texture(mesh), mesh.texture)
    assert np.array_equal(debug_views.texture(mesh, 500), mesh.texture)
    half = debug_views.texture(mesh, 64)
    mean = mesh.texture.reshape(32, 2, 64, 2, 3).mean((1, 3))
    assert half.shape == (32, 64, 3)
    assert np.abs(half - mean).max() <= 1


@pytest.mark.parametrize("name", ["wireframe", "normals", "atlas"])
def test_images_are_deterministic_on_any_background(name):
    mesh = textured(normal_map=True)
    draw = debug_views.VIEWS[name]
    white, clear, black = (
        draw(mesh, 96),
        draw(mesh, 96, background=None),
        draw(mesh, 96, background=(0, 0, 0)),
    )
    assert np.array_equal(white, draw(mesh, 96))
    assert white.dtype == clear.dtype == np.uint8
    assert white.shape == black.shape == (96, 96, 3)
    assert clear.shape == (96, 96, 4)
    assert set(np.unique(clear[..., 3])) >= {0, 255}
    over = Image.new("RGBA", (96, 96), "black")
    over.alpha_composite(Image.fromarray(clear))
    whole = clear[..., 3] == 255
    assert whole.mean() > 0.1
    np.testing.assert_allclose(np.asarray(over)[..., :3][whole], black[whole], atol=1)
    np.testing.assert_array_equal(white[whole], black[whole])
    assert (black[clear[..., 3] == 0] == 0).all()


def test_invalid_meshes_are_refused():
    bare = ball()
    for name, kind in (("atlas", "texture coordinates"), ("texture", "texture")):
        with pytest.raises(UserError, match=f"no {kind}"):
            debug_views.VIEWS[name](bare)
    for draw in debug_views.VIEWS.values():
        for size in (0, 5000):
            with pytest.raises(UserError, match="1 to 4096"):
                draw(textured(), size)
    two = frame(bare.vertices, [0, 90], 0)
    for draw in (debug_views.wireframe, debug_views.normals):
        with pytest.raises(ValueError, match="one view"):
            draw(bare, 32, two)
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert (debug_views.wireframe(empty, 32) == 255).all()
    assert (debug_views.normals(empty, 32) == 255).all()
