"""Previews: silhouettes, orientation, colour and background against independent references."""

import io

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import animation, render, sheet, thumbnail, thumbnails, turntable
from triplaneturbo.render.cameras import orbit

RED, GREEN, BLUE = (0.9, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.9)


def ball(radius=0.5, at=(0.0, 0.0, 0.0), color=None, subdivisions=4):
    shape = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    vertices = torch.tensor(np.asarray(shape.vertices), dtype=torch.float32)
    colors = None if color is None else torch.tensor(color).expand(len(vertices), 3)
    return Mesh(vertices + torch.tensor(at), torch.tensor(np.asarray(shape.faces)).long(), colors=colors)


def joined(*meshes):
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        torch.cat([m.vertices for m in meshes]),
        torch.cat([m.faces + int(start) for m, start in zip(meshes, starts, strict=True)]),
        colors=torch.cat([m.colors for m in meshes]),
    )


def card(texture, **parts):
    """A square that faces +x, textured: seen from +x its top left corner is at (y, z) = (-0.5, 0.5)."""
    vertices = torch.tensor([[0.0, -0.5, -0.5], [0.0, 0.5, -0.5], [0.0, 0.5, 0.5], [0.0, -0.5, 0.5]])
    uv = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), uv=uv, texture=texture, **parts)


def middle(image, which):
    """Return row and column, 0 to 1, of the centroid of the pixels in which the channel dominates."""
    numbers = image.astype(int)
    others = numbers[..., [c for c in range(3) if c != which]].max(-1)
    return np.argwhere(numbers[..., which] > others + 60).mean(0) / image.shape[0]


def test_silhouette_of_a_ball_is_a_circle():
    distance, size = 3.0, 128
    image = render(ball(0.5), orbit(40, 10, distance, 30), size, None)
    assert image.shape == (size, size, 4)
    assert image.dtype == np.uint8
    # The ball's outline is the cone of half angle asin(r / d).
    radius = np.tan(np.arcsin(0.5 / distance)) / np.tan(np.radians(15)) * size / 2
    y, x = np.mgrid[0:size, 0:size] + 0.5 - size / 2
    away = np.hypot(x, y)
    assert (image[..., 3][away < radius - 1.5] == 255).all()
    assert (image[..., 3][away > radius + 1.5] == 0).all()
    assert image[..., 3].sum() / 255 == pytest.approx(np.pi * radius**2, rel=0.01)
    edge = image[..., 3][np.abs(away - radius) < 0.7]
    assert ((edge > 0) & (edge < 255)).mean() > 0.3  # antialiased


def test_thumbnail_view_direction():
    """A nose on the front (+x), an ear on +y, a hat on +z."""
    mesh = joined(
        ball(0.5, color=(0.6, 0.6, 0.6)),
        ball(0.15, (0.5, 0, 0), RED),
        ball(0.15, (0, 0.5, 0), GREEN),
        ball(0.15, (0, 0, 0.5), BLUE),
    )
    image = thumbnail(mesh, 200)
    nose, ear, hat = (middle(image, channel) for channel in range(3))
    assert nose[1] < 0.5 < ear[1]  # three-quarter view: the front faces left
    assert nose[1] > 0.15
    assert hat[0] < 0.3
    assert nose[0] > 0.5  # seen from above, parts that point to the viewer are low in the image
    assert (image[0, 0] == 255).all()
    covered = (image != 255).any(-1)
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) / 200
    assert 0.8 < extent < 0.95


def test_turntable_shows_all_sides():
    mesh = joined(
        ball(0.5, color=(0.6, 0.6, 0.6)), ball(0.2, (0.5, 0, 0), RED), ball(0.2, (-0.5, 0, 0), BLUE)
    )
    frames = turntable(mesh, frames=4, size=64)
    assert len(frames) == 4
    np.testing.assert_array_equal(frames[0], render(mesh, _first_camera(mesh), 64))
    front, back = frames[0].astype(int), frames[2].astype(int)
    assert (front[..., 0] - front[..., 2] > 60).sum() > 50
    assert (back[..., 2] - back[..., 0] > 60).sum() > 50
    assert (front[..., 2] - front[..., 0] > 60).sum() < (back[..., 2] - back[..., 0] > 60).sum() / 2


def _first_camera(mesh):
    from triplaneturbo.render.cameras import frame

    return frame(mesh.vertices, [30.0, 120.0, 210.0, 300.0], 20.0, 30.0)[0]


@pytest.mark.parametrize(
    "color", [(200, 30, 30), (40, 160, 60), (128, 128, 128), (20, 20, 30), (240, 230, 200)]
)
def test_colours_are_unchanged(color):
    """Surfaces that face the camera are about as bright as the texture, and never dark."""
    texture = np.full((8, 8, 3), color, np.uint8)
    image = render(card(texture), orbit(0, 0, 2, 40), 64)
    seen = image[24:40, 24:40].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(seen, color, atol=20)
    assert seen.sum() > 0.88 * sum(color)


def test_texture_is_upright_and_not_mirrored():
    texture = np.zeros((32, 32, 3), np.uint8)
    texture[:16, :16] = (255, 0, 0)  # top left
    texture[:16, 16:] = (0, 255, 0)  # top right
    texture[16:, :16] = (0, 0, 255)  # bottom left
    image = render(card(texture), orbit(0, 0, 2, 40), 64)
    assert (middle(image, 0) < 0.5).all()
    assert middle(image, 1)[0] < 0.5 < middle(image, 1)[1]
    assert middle(image, 2)[1] < 0.5 < middle(image, 2)[0]


def test_background_and_transparency_agree():
    mesh = ball(0.5, color=RED)
    camera = orbit(0, 0, 3, 30)
    clear = render(mesh, camera, 64, None).astype(np.float64)
    for background in ((255, 255, 255), (0, 0, 0), (20, 120, 60)):
        image = render(mesh, camera, 64, background)
        assert image.shape == (64, 64, 3)
        assert (image[0, 0] == background).all()

        def linear(srgb):
            srgb = np.asarray(srgb) / 255
            return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)

        alpha = clear[..., 3:] / 255
        mixed = linear(clear[..., :3]) * alpha + linear(background) * (1 - alpha)
        np.testing.assert_allclose(linear(image), mixed, atol=0.01)


def test_normal_map_changes_the_shading():
    texture = np.full((8, 8, 3), 150, np.uint8)
    tangents = torch.tensor([[0.0, 1.0, 0.0, 1.0]]).expand(4, 4)
    camera = orbit(0, 0, 2, 40)

    def brightness(bend):
        bend = np.asarray(bend, np.float64) / np.linalg.norm(bend)
        pixels = np.broadcast_to(np.round((bend * 0.5 + 0.5) * 255), (8, 8, 3)).astype(np.uint8)
        image = render(card(texture, tangents=tangents, normal_map=pixels), camera, 64)
        return image[24:40, 24:40].mean()

    flat = render(card(texture), camera, 64)[24:40, 24:40].mean()
    assert brightness((0, 0, 1)) == pytest.approx(flat, abs=1.5)
    # The light comes from above: a surface bent upward (green, the bitangent) is brighter than one bent down.
    assert brightness((0, 0.6, 0.8)) > flat > brightness((0, -0.6, 0.8)) + 10


def test_both_sides_of_an_open_surface_are_lit():
    texture = np.full((8, 8, 3), 150, np.uint8)
    front, back = (render(card(texture), orbit(azimuth, 0, 2, 40), 32) for azimuth in (0, 180))
    np.testing.assert_allclose(front[12:20, 12:20].mean(), back[12:20, 12:20].mean(), atol=1)


def test_plain_small_and_empty_meshes():
    assert (thumbnail(ball(0.5), 32) != 255).any()
    tiny, large = thumbnail(ball(1e-4), 64), thumbnail(ball(0.5), 64)
    assert np.abs(tiny.astype(int) - large).max() <= 6
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert (thumbnail(empty, 16) == 255).all()
    assert (np.stack(turntable(empty, 2, 16)) == 255).all()


def test_previews_are_deterministic():
    mesh = ball(0.5, color=GREEN)
    np.testing.assert_array_equal(thumbnail(mesh, 64), thumbnail(mesh, 64))
    frames = turntable(mesh, 3, 32)
    for kind in ("webp", "gif", "png"):
        assert animation(frames, kind) == animation(frames, kind)


def test_sheets():
    images = [np.full((4, 6, 3), k, np.uint8) for k in range(5)]
    result = sheet(images, columns=3, gap=2)
    assert result.shape == (10, 22, 3)
    assert (result[:4, 8:14] == 1).all()
    assert (result[6:, :6] == 3).all()
    assert (result[4:6] == 255).all()
    assert (result[6:, 16:] == 255).all()
    assert sheet(images).shape == (8, 18, 3)
    assert sheet([np.zeros((2, 2, 4), np.uint8)] * 3, 2)[2:, 2:].sum() == 0
    for wrong in ([], [images[0], images[0][:2]]):
        with pytest.raises(ValueError, match="images must be"):
            sheet(wrong)


@pytest.mark.parametrize("background", [(255, 255, 255), None])
def test_animations_open_with_all_their_frames(background):
    mesh = joined(ball(0.5, color=(0.6, 0.6, 0.6)), ball(0.2, (0.5, 0, 0), RED))
    frames = turntable(mesh, 6, 48, background)
    for kind, name in (("webp", "WEBP"), ("gif", "GIF")):
        picture = Image.open(io.BytesIO(animation(frames, kind, seconds=1.2)))
        assert picture.format == name
        assert picture.size == (48, 48)
        assert picture.n_frames == 6
        picture.seek(1)
        picture.load()
        assert picture.info["duration"] == 200
        shown = np.asarray(picture.convert("RGBA"))[24, 24, :3].astype(int)
        np.testing.assert_allclose(shown, frames[1][24, 24, :3], atol=24)
    strip = np.asarray(Image.open(io.BytesIO(animation(frames, "png"))))
    np.testing.assert_array_equal(strip, np.concatenate(frames, axis=1))


def test_invalid_arguments_are_refused():
    mesh, camera = ball(0.5), orbit(0, 0, 2)
    for size in (0, 4097, (64, 0)):
        with pytest.raises(UserError, match="pixels"):
            render(mesh, camera, size)
    for frames in (0, 361):
        with pytest.raises(UserError, match="frames"):
            turntable(mesh, frames)
    with pytest.raises(UserError, match="webp"):
        animation([np.zeros((2, 2, 3), np.uint8)], "mp4")
    with pytest.raises(ValueError, match="frames"):
        animation([])
    with pytest.raises(ValueError, match="one view"):
        render(mesh, orbit([0, 1], 0, 2))


def test_previews_of_any_aspect_ratio():
    assert render(ball(0.5), orbit(0, 0, 3), (30, 50)).shape == (30, 50, 3)


def test_several_meshes_are_rendered_with_one_camera():
    meshes = [ball(0.25, subdivisions=3), ball(0.5, subdivisions=3)]
    small, large = (int((image[..., 3] > 127).sum()) for image in thumbnails(meshes, 96, None))
    assert large == pytest.approx(4 * small, rel=0.15)
    assert np.array_equal(thumbnails(meshes[1:], 96, None)[0], thumbnail(meshes[1], 96, None))
