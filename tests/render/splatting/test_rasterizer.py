"""The Gaussian rasterizer against analytic images, a dense twin and finite differences."""

import math

import pytest
import torch

from tests.helpers import dense_splatting
from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.render.splatting import compositing, gsplat_backend, rasterizer, tiles
from triplaneturbo.render.splatting.rasterizer import rasterize_gaussians

NAMES = ("means", "quaternions", "scales", "opacities", "colors")


def cloud(count, seed=0, scale=0.12, anisotropy=3.0, dtype=torch.float64):
    """Random anisotropic Gaussians in [-0.8, 0.8]^3 with quaternions of any length."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=dtype)

    return {
        "means": (uniform(count, 3) * 2 - 1) * 0.8,
        "quaternions": torch.randn(count, 4, generator=generator, dtype=dtype),
        "scales": scale * anisotropy ** (uniform(count, 3) * 2 - 1),
        "opacities": 0.2 + 0.79 * uniform(count),
        "colors": uniform(count, 3),
    }


def views(dtype=torch.float64):
    return orbit([10.0, 160.0], [15.0, -40.0], [2.4, 2.9], [50.0, 40.0], dtype=dtype)


def draw(scene, cameras, height, width, background=None):
    return rasterize_gaussians(*(scene[name] for name in NAMES), cameras, height, width, background)


def draw_densely(scene, cameras, height, width, background=None):
    """The same through the dense twin, by way of the gsplat backend."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gsplat_backend, "available", lambda means: True)
        patch.setattr(gsplat_backend, "_gsplat", lambda: dense_splatting)
        return draw(scene, cameras, height, width, background)


def assert_same(fast, slow, tolerance):
    for name in ("rgb", "opacity", "depth", "normal"):
        one, other = getattr(fast, name), getattr(slow, name)
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 21), (5, 3)])
@pytest.mark.parametrize("anisotropy", [1.0, 3.0, 20.0])
def test_splatting_matches_the_dense_twin(height, width, anisotropy):
    scene = cloud(25, anisotropy=anisotropy)
    background = torch.tensor([[0.2, 0.4, 0.9], [1.0, 0.5, 0.0]], dtype=torch.float64)
    fast = draw(scene, views(), height, width, background)
    slow = draw_densely(scene, views(), height, width, background)
    assert (fast.opacity > 0.3).any()
    assert (fast.opacity < 0.99).any()
    assert_same(fast, slow, 1e-10)
    torch.testing.assert_close(fast.means2d, slow.means2d)
    assert (fast.visible | ~slow.visible).all()  # a box touches all that has a visible pixel


def test_single_precision_is_close_to_double():
    scene = cloud(40, anisotropy=20.0)
    exact = draw(scene, views(), 24, 24)
    single = {name: value.float() for name, value in scene.items()}
    coarse = draw(single, views(torch.float32), 24, 24)
    assert coarse.rgb.dtype == torch.float32
    # A contribution at the threshold of 1/255 may fall on either side.
    for name in ("rgb", "opacity", "normal"):
        difference = (getattr(coarse, name) - getattr(exact, name)).abs()
        assert difference.max() < 0.006
        assert difference.median() < 1e-5


def test_gradients_match_the_dense_twin():
    """Of all parameters and the projected means, through all outputs."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(2, 11, 14, 8, generator=generator, dtype=torch.float64) - 0.3
    gradients = []
    for render in (draw, draw_densely):
        scene = {name: value.requires_grad_() for name, value in cloud(20, seed=2).items()}
        background = torch.tensor([0.3, 0.6, 0.1], dtype=torch.float64, requires_grad=True)
        seen = render(scene, views(), 11, 14, background)
        seen.means2d.retain_grad()
        scalars = torch.stack((seen.depth, seen.opacity), dim=-1)
        image = torch.cat((seen.rgb, seen.normal, scalars), dim=-1)
        (image * weights).sum().backward()
        gradients.append([*(value.grad for value in scene.values()), background.grad, seen.means2d.grad])
    for fast, slow in zip(*gradients, strict=True):
        assert fast.abs().max() > 1e-3
        torch.testing.assert_close(fast, slow, atol=1e-9, rtol=1e-7)


def test_gradcheck():
    scene = cloud(4, seed=5, scale=0.25)
    camera = views()[0]

    def image(*values):
        seen = rasterize_gaussians(*values, camera, 6, 7)
        return seen.rgb, seen.opacity, seen.depth, seen.normal

    values = [scene[name].requires_grad_() for name in NAMES]
    assert torch.autograd.gradcheck(image, values, eps=1e-7, atol=1e-5)


def test_gradcheck_of_compositing_with_saturated_and_faint_gaussians():
    generator = torch.Generator().manual_seed(0)
    pixels = compositing.monomials(4, torch.zeros((), dtype=torch.float64))
    offsets = (torch.rand(2, 5, 2, generator=generator, dtype=torch.float64) - 0.5) * 3
    conics = torch.tensor([0.4, 0.1, 0.2], dtype=torch.float64).expand(2, 5, 3)
    logs = torch.tensor([-0.5, 4.0, -0.1, -5.0, compositing.PADDING], dtype=torch.float64).expand(2, 5)
    coefficients = compositing.polynomials(offsets, conics, logs).requires_grad_()
    features = torch.rand(2, 5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    alpha, _ = compositing._weights(coefficients.detach(), pixels)
    assert (alpha == compositing.MAX_ALPHA).any()
    assert (alpha[..., 3] == 0).any()
    assert (alpha[..., 4] == 0).all()
    assert torch.autograd.gradcheck(
        lambda c, f: compositing.composite(c, f, pixels), (coefficients, features), eps=1e-8, atol=1e-5
    )


def test_single_gaussian_matches_its_analytic_image():
    """On the axis, at distance d, it is opacity * exp(-q / 2) with deviations scaled by focal / d."""
    size, distance, opacity = 33, 3.0, 0.8
    camera = orbit(0.0, 0.0, distance, 40.0, dtype=torch.float64)  # right is +y, up is +z
    scene = {
        "means": torch.zeros(1, 3, dtype=torch.float64),
        "quaternions": torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64),
        "scales": torch.tensor([[0.05, 0.3, 0.1]], dtype=torch.float64),
        "opacities": torch.tensor([opacity], dtype=torch.float64),
        "colors": torch.tensor([[0.9, 0.5, 0.1]], dtype=torch.float64),
    }
    seen = draw(scene, camera, size, size, background=torch.ones(3))
    focal = size / 2 / math.tan(math.radians(20))
    variance_y, variance_z = ((focal * s / distance) ** 2 + 0.3 for s in (0.3, 0.1))
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    row, column = torch.meshgrid(axis, axis, indexing="ij")
    alpha = opacity * torch.exp(-0.5 * (column**2 / variance_y + row**2 / variance_z))
    alpha = torch.where(alpha < 1 / 255, 0, alpha)
    torch.testing.assert_close(seen.opacity[0], alpha)
    color = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    torch.testing.assert_close(seen.rgb[0], alpha[..., None] * color + 1 - alpha[..., None])
    torch.testing.assert_close(seen.depth[0], distance * (alpha > 0).double())
    normal = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)  # its shortest axis, toward the camera
    torch.testing.assert_close(seen.normal[0], alpha[..., None] * normal)


def test_normals_face_the_camera():
    """A disc's normal is its shortest axis, turned toward each camera; also for the opposite quaternion."""
    scene = cloud(1)
    scene["means"], scene["opacities"] = torch.zeros_like(scene["means"]), torch.ones_like(scene["opacities"])
    half_turn = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)  # about y: x to -x
    cameras = orbit([0.0, 180.0], 0.0, 3.0, 40.0, dtype=torch.float64)
    for quaternion in (torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64), half_turn):
        scene["quaternions"] = quaternion
        scene["scales"] = torch.tensor([[0.01, 0.4, 0.4]], dtype=torch.float64)
        normals = draw(scene, cameras, 9, 9).normal[:, 4, 4]
        expected = torch.tensor([[0.999, 0, 0], [-0.999, 0, 0]], dtype=torch.float64)
        torch.testing.assert_close(normals, expected, atol=1e-9, rtol=0)


def test_near_gaussians_occlude_far_ones():
    scene = cloud(2)
    scene["means"] = torch.tensor([[-0.5, 0, 0], [0.5, 0, 0]], dtype=torch.float64)
    scene["scales"] = torch.full((2, 3), 0.2, dtype=torch.float64)
    scene["opacities"] = torch.full((2,), 0.75, dtype=torch.float64)
    scene["colors"] = torch.eye(3, dtype=torch.float64)[:2]
    cameras = orbit([0.0, 180.0], 0.0, 3.0, 40.0, dtype=torch.float64)
    front, behind = draw(scene, cameras, 9, 9).rgb[:, 4, 4]
    torch.testing.assert_close(front[:2].tolist(), [0.25 * 0.75, 0.75])
    torch.testing.assert_close(behind[:2].tolist(), [0.75, 0.25 * 0.75])


def test_result_does_not_depend_on_the_order():
    results = []
    for order in (torch.arange(60), torch.randperm(60, generator=torch.Generator().manual_seed(0))):
        scene = {name: value[order].requires_grad_() for name, value in cloud(60, seed=3).items()}
        seen = draw(scene, views(), 20, 20)
        (seen.rgb.square().sum() + seen.depth.sum()).backward()
        back = torch.argsort(order)
        results.append([*seen[:4], *(value.grad[back] for value in scene.values())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_result_is_deterministic_in_any_batch(monkeypatch):
    """Views and tiles may be composited together or one by one."""
    scene = {name: value.float() for name, value in cloud(200, seed=4).items()}
    cameras = views(torch.float32)
    together = draw(scene, cameras, 40, 24)
    assert all(torch.equal(a, b) for a, b in zip(together, draw(scene, cameras, 40, 24), strict=True))
    monkeypatch.setattr(rasterizer, "_PAIRS", 1)
    assert_same(draw(scene, cameras, 40, 24), together, 1e-6)
    for v in range(2):
        alone = draw(scene, cameras[v], 40, 24)
        torch.testing.assert_close(alone.rgb[0], together.rgb[v], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [4, 8, 32])
def test_any_tile_size(monkeypatch, size):
    scene = cloud(30, seed=6)
    expected = draw(scene, views(), 19, 23)
    monkeypatch.setattr(rasterizer, "TILE", size)
    assert_same(draw(scene, views(), 19, 23), expected, 1e-11)


def test_gaussians_out_of_view():
    """Behind the camera, before the near plane, beyond the far plane, beside the image, too faint."""
    camera = Cameras(*vars(orbit(0.0, 0.0, 3.0, 40.0, dtype=torch.float64)).values())
    camera = Cameras(camera.c2w, camera.fovy, near=0.5, far=10.0)
    scene = cloud(5, scale=0.05, anisotropy=1.0)
    scene["means"] = torch.tensor(
        [[4.0, 0, 0], [2.7, 0, 0], [-8.0, 0, 0], [0.0, 3, 0], [0, 0, 0]], dtype=torch.float64
    )
    scene["opacities"][4] = 0.003
    scene = {name: value.requires_grad_() for name, value in scene.items()}
    seen = draw(scene, camera, 12, 12, background=torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(seen.rgb[0, 5, 7].tolist(), [0.1, 0.2, 0.3])
    assert not seen.visible.any()
    assert not seen.opacity.any()
    assert not seen.depth.any()
    sum(part.sum() for part in (seen.rgb, seen.opacity, seen.depth, seen.normal)).backward()
    assert all(not value.grad.any() for value in scene.values())


def test_camera_inside_the_gaussians_is_finite():
    scene = {name: value.float().requires_grad_() for name, value in cloud(300, seed=7).items()}
    seen = draw(scene, orbit(30.0, 10.0, 0.2, 90.0), 32, 32)
    assert (seen.opacity > 0.5).any()
    (seen.rgb.sum() + seen.depth.sum() + seen.normal.sum()).backward()
    for value in (*seen[:4], *(value.grad for value in scene.values())):
        assert torch.isfinite(value).all()


def test_no_gaussians():
    scene = {name: value[:0] for name, value in cloud(1).items()}
    seen = draw(scene, views(), 6, 6, background=torch.ones(3))
    assert (seen.rgb == 1).all()
    assert seen.visible.shape == (2, 0)


def test_tiles_contain_every_visible_gaussian():
    """Against a loop over tiles and Gaussians."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(2, 40, 2, generator=generator) * 60 - 15
    reach = torch.rand(2, 40, 2, generator=generator) * 9
    reach[0, :4] = 0
    depths = torch.rand(2, 40, generator=generator)
    lists = tiles.assign(means, reach, depths, 30, 21, 8)
    assert (lists.rows, lists.columns) == (4, 3)
    expected = {}
    for v in range(2):
        for i in torch.argsort(depths[v]).tolist():
            for row in range(30):
                for column in range(21):
                    away = (means[v, i] - torch.tensor([column + 0.5, row + 0.5])).abs()
                    if (away <= reach[v, i]).all() and reach[v, i].all():
                        found = expected.setdefault((v * 4 + row // 8) * 3 + column // 8, [])
                        if v * 40 + i not in found:
                            found.append(v * 40 + i)
    actual = {
        int(tile): lists.members[start : start + count].tolist()
        for tile, start, count in zip(lists.tiles, lists.starts, lists.counts, strict=True)
    }
    assert actual == expected
    # Chunks hold the same lists, whatever the budget.
    for budget in (1, 50, 10**6):
        chunked = {}
        for group, members in lists.chunks(budget):
            assert members.numel() <= max(budget, int(lists.counts[group[0]]))
            for position, row in zip(group.tolist(), members, strict=True):
                chunked[int(lists.tiles[position])] = row[row >= 0].tolist()
        assert chunked == expected


@pytest.mark.parametrize("missing", ["gsplat", "its kernels"])
def test_gsplat_is_used_only_with_compiled_kernels(monkeypatch, missing):
    def find_spec(name):
        assert name == "gsplat.csrc"
        if missing == "gsplat":
            raise ModuleNotFoundError("No module named 'gsplat'")

    gsplat_backend._gsplat.cache_clear()
    monkeypatch.setattr(gsplat_backend.importlib.util, "find_spec", find_spec)
    assert gsplat_backend._gsplat() is None
    gsplat_backend._gsplat.cache_clear()


def test_gsplat_is_not_used_on_the_cpu(monkeypatch):
    monkeypatch.setattr(gsplat_backend, "_gsplat", lambda: dense_splatting)
    assert not gsplat_backend.available(torch.zeros(1, 3))
