"""Cameras: orientation by hand-worked cases, and the numbers of the public training code."""

import math

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.parity_files import each_file
from triplaneturbo.render.cameras import Cameras, frame, look_at, orbit


def test_front_camera_has_y_to_the_right_and_z_up():
    camera = orbit(azimuth=0, elevation=0, distance=2)
    torch.testing.assert_close(camera.positions, torch.tensor([[2.0, 0.0, 0.0]]))
    columns = camera.c2w[0, :3, :3]
    torch.testing.assert_close(columns, torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))


def test_azimuth_and_elevation_directions():
    cameras = orbit(azimuth=[90.0, 0.0], elevation=[0.0, 30.0], distance=1.5, target=(0.1, 0.2, 0.3))
    expected = [[0.1, 1.7, 0.3], [0.1 + 1.5 * math.cos(math.pi / 6), 0.2, 0.3 + 0.75]]
    torch.testing.assert_close(cameras.positions, torch.tensor(expected))
    assert len(cameras) == 2


@pytest.mark.parametrize("elevation", [-90.0, -89.0, -20.0, 0.0, 45.0, 89.0, 90.0])
def test_camera_axes_are_rotations(elevation):
    axes = orbit([0.0, 77.0, -130.0], elevation, 2).c2w[:, :3, :3]
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand(3, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(3))


def test_pixels_clip_matrix_and_rays_agree():
    cameras = orbit([20.0, 140.0], [10.0, -35.0], [2.0, 3.0], [35.0, 60.0])
    height, width = 40, 64
    points = torch.rand(50, 3) * 1.6 - 0.8
    pixels = cameras.to_pixels(points, height, width)  # [2, 50, 3]
    x, y = (pixels[..., :2] / pixels[..., 2:]).unbind(-1)
    clip = torch.nn.functional.pad(points, (0, 1), value=1.0) @ cameras.mvp(width / height).mT  # [2, 50, 4]
    torch.testing.assert_close(clip[..., 3], pixels[..., 2])
    torch.testing.assert_close((clip[..., 0] / clip[..., 3] + 1) / 2 * width, x, atol=1e-4, rtol=0)
    torch.testing.assert_close((clip[..., 1] / clip[..., 3] + 1) / 2 * height, y, atol=1e-4, rtol=0)
    # A point on a ray is drawn at that ray's pixel centre.
    origins, directions = cameras.rays(height, width)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, height, width))
    point = origins[1, 7, 50] + 1.3 * directions[1, 7, 50]
    back = cameras.to_pixels(point[None], height, width)[1, 0]
    torch.testing.assert_close(back[:2] / back[2], torch.tensor([50.5, 7.5]), atol=1e-4, rtol=0)


def test_near_and_far_map_to_the_clip_cube():
    camera = orbit(0, 0, 2)
    ends = torch.tensor([[2 - camera.near, 0.0, 0.0], [2 - camera.far, 0.0, 0.0]])
    clip = torch.nn.functional.pad(ends, (0, 1), value=1.0) @ camera.mvp()[0].T
    torch.testing.assert_close(clip[:, 2] / clip[:, 3], torch.tensor([-1.0, 1.0]), atol=1e-4, rtol=0)


def test_framed_points_fill_the_image():
    points = torch.rand(500, 3) * torch.tensor([1.5, 0.3, 0.8]) + torch.tensor([3.0, -1.0, 0.5])
    cameras = frame(points, [0.0, 77.0, 200.0], 20.0, fovy=30, margin=0.1)
    pixels = cameras.to_pixels(points, 100, 100)
    where = pixels[..., :2] / pixels[..., 2:]  # [3, 500, 2]
    assert where.min() == pytest.approx(10, abs=0.05) or where.max() == pytest.approx(90, abs=0.05)
    assert where.min() > 9.9
    assert where.max() < 90.1
    distances = (cameras.positions - (points.amin(0) + points.amax(0)) / 2).norm(dim=1)
    torch.testing.assert_close(distances, distances[:1].expand(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("points", [torch.zeros(0, 3), torch.ones(4, 3)])
def test_framing_of_empty_or_single_points(points):
    cameras = frame(points, 0, 0)
    assert torch.isfinite(cameras.c2w).all()
    assert cameras.to_camera(points.sum(0)[None] / max(1, len(points)))[0, 0, 2] < -0.5


def test_look_at_is_differentiable():
    eye = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(look_at, (eye,))


@each_file("camera/case_*.safetensors")
def test_cameras_match_the_public_trainer(file):
    case = load_file(file)
    cameras = orbit(
        case["in_azimuth_deg"],
        case["in_elevation_deg"],
        case["in_relative_distance"] / torch.tan(case["fovy"] / 2),
        case["in_fovy_deg"],
    )
    for ours, theirs in (
        (cameras.c2w, case["c2w"]),
        (cameras.positions, case["camera_positions"]),
        (cameras.fovy, case["fovy"]),
        (cameras.mvp(), case["mvp_mtx"]),
    ):
        torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=0)
    height, width = case["rays_d"].shape[1:3]
    origins, directions = cameras.rays(height, width)
    torch.testing.assert_close(origins, case["rays_o"], atol=3e-6, rtol=0)
    torch.testing.assert_close(directions, case["rays_d"], atol=3e-6, rtol=0)


def test_cameras_can_change_dtype():
    double = orbit(0, 0, 2).to(torch.float64)
    assert isinstance(double, Cameras)
    assert double.c2w.dtype == double.fovy.dtype == torch.float64
