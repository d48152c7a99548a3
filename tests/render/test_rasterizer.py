"""The rasteriser against a slow, plain twin (ray casting, one pixel and one triangle at a time)."""

import types

import numpy as np
import pytest
import torch

from triplaneturbo.render import zbuffer
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.rasterizer import barycentrics, interpolate, rasterize, rasterizer
from triplaneturbo.render.rasterizers import numba_zbuffer, nvdiffrast_cuda, torch_zbuffer


def slow(vertices, faces, cameras, height, width):
    """Ray casting by solving o + t d = b0 p0 + b1 p1 + b2 p2 for every pixel and every triangle."""
    origins, directions = cameras.rays(height, width)
    triangle = torch.full((len(cameras), height, width), -1)
    bary = torch.zeros(len(cameras), height, width, 3, dtype=vertices.dtype)
    depth = torch.zeros(len(cameras), height, width, dtype=vertices.dtype)
    for v in range(len(cameras)):
        forward = -cameras.c2w[v, :3, 2]
        for r in range(height):
            for c in range(width):
                for f, face in enumerate(faces.tolist()):
                    p0, p1, p2 = vertices[face]
                    matrix = torch.stack((p1 - p0, p2 - p0, -directions[v, r, c]), dim=1)
                    if torch.linalg.det(matrix).abs() < 1e-12:
                        continue
                    b1, b2, t = torch.linalg.solve(matrix, origins[v, r, c] - p0)
                    z = t * (directions[v, r, c] @ forward)
                    if min(b1, b2, 1 - b1 - b2) < 0 or z <= cameras.near:
                        continue
                    if triangle[v, r, c] < 0 or z < depth[v, r, c]:
                        triangle[v, r, c] = f
                        bary[v, r, c] = torch.stack((1 - b1 - b2, b1, b2))
                        depth[v, r, c] = z
    return triangle, bary, depth


def soup(count, seed=0, scale=0.5):
    """Random triangles, float64."""
    generator = torch.Generator().manual_seed(seed)
    vertices = (torch.rand(count * 3, 3, generator=generator, dtype=torch.float64) * 2 - 1) * scale
    return vertices, torch.arange(count * 3).reshape(count, 3)


def views():
    return orbit([10.0, 160.0], [15.0, -40.0], [1.6, 2.2], [50.0, 40.0], dtype=torch.float64)


def test_rasterizer_matches_the_slow_twin():
    vertices, faces = soup(12)
    fast = rasterize(vertices, faces, views(), 13, 17)
    triangle, bary, depth = slow(vertices, faces, views(), 13, 17)
    assert (triangle >= 0).sum() > 60
    assert torch.equal(fast.triangle, triangle)
    torch.testing.assert_close(fast.bary, bary, atol=1e-9, rtol=0)
    torch.testing.assert_close(fast.depth, depth, atol=1e-9, rtol=0)
    assert torch.equal(fast.mask, triangle >= 0)


def test_triangles_crossing_the_near_plane():
    """Eye among the triangles: what is behind or too near is not drawn, the rest needs no clipping."""
    vertices, faces = soup(14, seed=3, scale=1.5)
    camera = orbit(30.0, 10.0, 0.3, 70.0, dtype=torch.float64)
    fast = rasterize(vertices, faces, camera, 12, 12)
    triangle, bary, depth = slow(vertices, faces, camera, 12, 12)
    behind = camera.to_pixels(vertices, 12, 12)[0, :, 2].reshape(-1, 3) <= camera.near
    assert (behind.any(1) & ~behind.all(1))[triangle[triangle >= 0]].any()  # the case is there
    assert torch.equal(fast.triangle, triangle)
    torch.testing.assert_close(fast.bary, bary, atol=1e-9, rtol=0)
    torch.testing.assert_close(fast.depth, depth, atol=1e-9, rtol=0)


def test_gradients_match_the_slow_twin():
    vertices, faces = soup(3, seed=1)
    colors = torch.rand(len(vertices), 2, dtype=torch.float64)
    weights = torch.rand(2, 6, 6, 2, dtype=torch.float64)
    results = []
    for draw in (rasterize, slow):
        v, c = vertices.clone().requires_grad_(), colors.clone().requires_grad_()
        triangle, bary, depth = draw(v, faces, views(), 6, 6)
        image = interpolate(c, faces, triangle, bary)
        loss = (image * weights).sum() + (depth * weights[..., 0]).sum()
        results.append(torch.autograd.grad(loss, (v, c)))
    assert results[1][0].abs().sum() > 1
    torch.testing.assert_close(results[0], results[1], atol=1e-9, rtol=1e-9)


def test_gradcheck():
    vertices, faces = soup(4, seed=5)
    cameras = views()
    triangle = rasterize(vertices, faces, cameras, 5, 5).triangle
    assert (triangle >= 0).sum() > 3
    colors = torch.rand(len(vertices), 2, dtype=torch.float64, requires_grad=True)

    def image(v, c):
        bary, depth = barycentrics(v, faces, cameras, triangle)
        return interpolate(c, faces, triangle, bary), depth

    assert torch.autograd.gradcheck(image, (vertices.requires_grad_(), colors))


def grid_sphere(n):
    """A closed UV sphere of radius 0.7, float32."""
    polar = torch.linspace(0, torch.pi, n + 1)[:, None].expand(-1, 2 * n)
    around = (torch.arange(2 * n) * torch.pi / n)[None].expand(n + 1, -1)
    vertices = 0.7 * torch.stack((polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos()), -1)
    index = torch.arange((n + 1) * 2 * n).reshape(n + 1, 2 * n)
    a, b = index[:-1], index[1:]
    c, d = b.roll(-1, 1), a.roll(-1, 1)
    faces = torch.cat((torch.stack((a, b, c), -1).reshape(-1, 3), torch.stack((a, c, d), -1).reshape(-1, 3)))
    return vertices.reshape(-1, 3), faces


def test_float32_sphere_has_no_holes_and_the_right_positions():
    vertices, faces = grid_sphere(60)
    cameras = orbit([0.0, 123.0], [0.0, 35.0], 2.0)
    result = rasterize(vertices, faces, cameras, 96, 96)
    origins, directions = cameras.rays(96, 96)
    along = -(origins * directions).sum(-1)
    miss = (origins + along[..., None] * directions).norm(dim=-1)  # the ray's distance from the centre
    assert result.mask[miss < 0.69].all()
    assert not result.mask[miss > 0.7001].any()
    points = interpolate(vertices, faces, result.triangle, result.bary)
    inner = miss < 0.6
    hit = (along - (0.7**2 - miss**2).clamp_min(0).sqrt())[..., None] * directions + origins
    torch.testing.assert_close(points[inner], hit[inner], atol=2e-3, rtol=0)
    forward = -cameras.c2w[:, :3, 2]
    depth = ((points - origins) * forward[:, None, None]).sum(-1)
    torch.testing.assert_close(result.depth[result.mask], depth[result.mask], atol=1e-5, rtol=0)
    # Recomputed in torch, single precision: the same barycentrics.
    bary, again = barycentrics(vertices, faces, cameras, result.triangle)
    torch.testing.assert_close(bary, result.bary, atol=2e-3, rtol=0)
    torch.testing.assert_close(again, result.depth, atol=1e-5, rtol=0)


def test_row_zero_is_the_top_and_column_zero_the_left():
    def where(point):
        corners = torch.tensor(point) + torch.tensor([[0.0, 0.05, 0.0], [0.0, -0.05, 0.0], [0.0, 0.0, 0.08]])
        mask = rasterize(corners, torch.tensor([[0, 1, 2]]), orbit(0, 0, 2), 32, 32).mask[0]
        return mask.nonzero().double().mean(0).tolist()  # row, column

    assert where([0.0, 0.0, 0.4])[0] < 10  # up is a small row
    assert where([0.0, 0.4, 0.0])[1] > 20  # seen from +x, +y is on the right


def test_first_triangle_wins_at_equal_depth():
    vertices = torch.tensor([[0.0, -0.5, -0.5], [0.0, 0.5, -0.5], [0.0, 0.0, 0.5]])
    faces = torch.tensor([[0, 1, 2], [2, 1, 0]])
    triangle = rasterize(vertices, faces, orbit(0, 0, 2), 24, 24).triangle
    assert set(triangle.unique().tolist()) == {-1, 0}


def test_threads_do_not_change_the_result():
    vertices, faces = grid_sphere(20)
    cameras = orbit([0.0, 50.0, 100.0], 20, 2, dtype=torch.float64)
    pixels = cameras.to_pixels(vertices.double(), 33, 21).numpy()
    results = [zbuffer.draw(pixels, faces.numpy(), 0.1, 33, 21, threads) for threads in (1, 2, 5, 64)]
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_degenerate_and_empty_faces():
    vertices = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 1.0, 0.0]])
    for faces in (torch.tensor([[0, 1, 2], [1, 1, 2]]), torch.zeros(0, 3, dtype=torch.int64)):
        result = rasterize(vertices, faces, orbit(0, 0, 3), 8, 8)
        assert not result.mask.any()
        assert result.bary.abs().sum() == 0
        assert interpolate(vertices, faces, result.triangle, result.bary).shape == (1, 8, 8, 3)


@pytest.mark.parametrize("pairs", [1 << 19, 700])
def test_the_torch_backend_equals_the_kernel(monkeypatch, pairs):
    """Bit for bit on a CPU, also in chunks, with faces through the near plane and without area."""
    monkeypatch.setattr(torch_zbuffer, "PAIRS_PER_CHUNK", pairs)
    sphere, faces = grid_sphere(24)  # the faces at its poles have no area
    twice = torch.cat((faces, faces.flip(1)))  # equally near faces: the first one is seen
    for mesh, cameras in (
        (soup(40), views()),
        (soup(40, seed=3, scale=1.5), orbit(30.0, 10.0, 0.3, 70.0, dtype=torch.float64)),
        ((sphere, twice), orbit([0.0, 123.0], [0.0, 35.0], 2.0)),
        ((sphere, faces[:0]), orbit(0.0, 0.0, 2.0)),
    ):
        expected = numba_zbuffer.rasterize(*mesh, cameras, 33, 47)
        found = torch_zbuffer.rasterize(*mesh, cameras, 33, 47)
        assert expected.mask.any() == bool(len(mesh[1]))
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
            assert one.dtype == other.dtype


def test_cpu_is_served_by_numba():
    assert rasterizer("cpu") == "numba"
    assert rasterizer(torch.device("cpu")) == "numba"


def test_nvdiffrast_is_called_as_documented(monkeypatch):
    """A stand-in that keeps nvdiffrast's documented contract, gives our result."""
    vertices, faces = grid_sphere(12)
    cameras = orbit([0.0, 70.0], 20, 2)
    expected = rasterize(vertices, faces, cameras, 24, 40)

    def fake_rasterize(context, pos, tri, resolution, grad_db):
        assert context == "context"
        assert pos.dtype == torch.float32
        assert tri.dtype == torch.int32
        assert pos.is_contiguous()
        height, width = resolution
        # Its own view of clip space: x right, y along growing rows, w the perspective divisor.
        x, y, _, w = pos.double().unbind(-1)
        pixels = torch.stack(((x + w) / 2 * width, (y + w) / 2 * height, w), dim=-1)
        triangle, bary, _ = zbuffer.draw(pixels.numpy(), tri.long().numpy(), 0.1, height, width, 1)
        out = np.concatenate((bary[..., :2], np.zeros_like(bary[..., :1]), triangle[..., None] + 1), axis=-1)
        return torch.from_numpy(out).float(), None

    fake = types.SimpleNamespace(rasterize=fake_rasterize)
    monkeypatch.setattr(nvdiffrast_cuda, "_nvdiffrast", lambda: fake)
    monkeypatch.setattr(nvdiffrast_cuda, "_context", lambda device: "context")
    result = nvdiffrast_cuda.rasterize(vertices, faces, cameras, 24, 40)
    same = result.triangle == expected.triangle
    assert same.float().mean() > 0.995  # single-precision clip positions: some edge pixels may change sides
    torch.testing.assert_close(result.bary[same], expected.bary[same], atol=1e-3, rtol=0)
    torch.testing.assert_close(result.depth[same], expected.depth[same], atol=1e-4, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_tensors_give_the_same_image():
    vertices, faces = grid_sphere(12)
    cameras = orbit([0.0, 70.0], 20, 2)
    expected = rasterize(vertices, faces, cameras, 24, 24)
    result = rasterize(vertices.cuda(), faces.cuda(), cameras.to("cuda"), 24, 24)
    assert result.triangle.is_cuda
    assert (result.triangle.cpu() == expected.triangle).float().mean() > 0.98


@pytest.mark.skipif(
    not torch.cuda.is_available() or rasterizer("cuda") != "nvdiffrast",
    reason="needs a CUDA device and nvdiffrast",
)
def test_nvdiffrast_matches_the_cpu():
    vertices, faces = grid_sphere(40)
    cameras = orbit([0.0, 70.0, 200.0], 20, 2)
    expected = rasterize(vertices, faces, cameras, 256, 256)
    result = rasterize(vertices.cuda(), faces.cuda(), cameras.to("cuda"), 256, 256)
    same = result.triangle.cpu() == expected.triangle
    assert same.float().mean() > 0.999
    torch.testing.assert_close(result.bary.cpu()[same], expected.bary[same], atol=1e-4, rtol=0)
