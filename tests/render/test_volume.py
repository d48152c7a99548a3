"""The reference volume renderer against the public implementation's values and a scalar version."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.helpers.parity_files import each_file, settings_of
from tests.helpers.ray_sampling import importance_edges, stopped_fraction, uniform_edges
from tests.helpers.reference_volume_renderer import (
    SHARPNESS,
    midpoints,
    opacities,
    points_along,
    proposal_density,
    render_patched,
    render_volume,
    render_weights,
)
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.volume import camera_normals, disparity, sparsity
from triplaneturbo.representations.triplane import FieldDecoder

TOLERANCE = {"atol": 3e-5, "rtol": 0}


def field(points):
    """Return sdf and rgb of the analytic field in the parity data, a bumpy sphere."""
    x, y, z = points.unbind(-1)
    sdf = points.norm(dim=-1) - 0.5 + 0.05 * (6 * x).sin() * (5 * y).cos() * (4 * z + 0.3).sin()
    raw = torch.stack(((3 * x).sin() + 0.5 * y, (4 * y).cos() - z, 0.7 * x * z + (5 * z).sin()), -1)
    return sdf, raw.sigmoid() * 1.002 - 0.001


def background(directions):
    x, y, z = directions.unbind(-1)
    return torch.stack((x + 0.2, 2 * y, z - x), -1).sigmoid()


def images_of(case, sampling, origins, directions):
    """Render the public implementation's outputs [V, h, w, C] for rays [V, h, w, 3], and the rendering."""
    shape = origins.shape[:3]
    view = render_volume(
        field,
        origins.flatten(1, 2),
        directions.flatten(1, 2),
        proposal=sampling["num_samples_per_ray_importance"],
        importance=sampling["num_samples_per_ray"],
        near=sampling["near_plane"],
        far=sampling["far_plane"],
    )
    opacity, depth = view.opacity.view(shape), view.depth.view(shape)
    distances = case["camera_distances"][:, None, None]
    behind = background(directions)
    images = {
        "opacity": opacity[..., None],
        "depth": depth[..., None],
        "comp_rgb": view.rgb.view(*shape, 3) + behind * (1 - opacity[..., None]),
        "comp_rgb_bg": behind,
        "disparity": disparity(depth, opacity, distances)[..., None],
        "comp_normal_cam_vis": camera_normals(
            view.normal.view(*shape, 3), opacity, case["c2w"][:, None, None]
        ),
    }
    return images, view


@each_file("volume/compositing_case_*.safetensors")
def test_weights_match_the_public_implementation(file):
    case = load_file(file)
    sdf, normal, rgb = (case[name].requires_grad_() for name in ("sdf", "normal", "rgb"))
    edges = torch.cat((case["t_starts"], case["t_ends"][:, -1:]), -1)
    alpha = opacities(sdf, normal, case["dirs"], edges, case["inv_std"].item())
    weights = render_weights(alpha)
    depth = (weights * midpoints(edges)).sum(-1, keepdim=True)
    summed = (weights[..., None] * normal).sum(-2)
    color = (weights[..., None] * rgb).sum(-2)
    opacity = weights.sum(-1, keepdim=True)
    torch.testing.assert_close(alpha, case["alpha"], **TOLERANCE)
    torch.testing.assert_close(weights, case["weights"], **TOLERANCE)
    torch.testing.assert_close(depth, case["depth"], **TOLERANCE)
    torch.testing.assert_close(opacity, case["opacity"], **TOLERANCE)
    torch.testing.assert_close(color, case["comp_rgb_fg"], **TOLERANCE)
    torch.testing.assert_close(F.normalize(summed, dim=-1), case["comp_normal"], **TOLERANCE)

    outputs = {"opacity": opacity, "depth": depth, "normal": F.normalize(summed, dim=-1), "rgb": color}
    loss = sum((value * case[f"cot_{name}"]).sum() for name, value in outputs.items())
    loss.backward()
    for name, leaf in (("sdf", sdf), ("normal", normal), ("rgb", rgb)):
        torch.testing.assert_close(leaf.grad, case[f"grad_{name}"], atol=1e-4, rtol=1e-4)


@each_file("volume/render_case_*.safetensors")
def test_samples_match_the_public_implementation(file):
    case, settings = load_file(file), settings_of(file.parent)
    sampling = settings["renderer_cfg"]
    importance, proposal = sampling["num_samples_per_ray"], sampling["num_samples_per_ray_importance"]
    origins, directions = (case[name].reshape(-1, 3) for name in ("rays_o", "rays_d"))
    sharpness = settings["inv_std"]
    assert sharpness == pytest.approx(SHARPNESS, abs=1e-4)
    middle = torch.full(origins.shape[:1], 0.5)
    even = uniform_edges(sampling["near_plane"], sampling["far_plane"], proposal, middle)
    torch.testing.assert_close(even[:, :-1], case["prop_t_starts"], **TOLERANCE)
    torch.testing.assert_close(even[:, 1:], case["prop_t_ends"], **TOLERANCE)
    density = proposal_density(field(points_along(origins, directions, even))[0], sharpness)
    torch.testing.assert_close(density, case["prop_density"], atol=3e-4, rtol=1e-4)
    fine = importance_edges(even, stopped_fraction(case["prop_density"], even), importance)
    edges = torch.cat((even, fine), -1).sort(-1).values
    torch.testing.assert_close(edges[:, :-1], case["t_starts"], atol=1e-4, rtol=0)
    torch.testing.assert_close(edges[:, 1:], case["t_ends"], atol=1e-4, rtol=0)


@each_file("volume/render_case_*.safetensors")
def test_images_match_the_public_implementation(file):
    case, sampling = load_file(file), settings_of(file.parent)["renderer_cfg"]
    images, view = images_of(case, sampling, case["rays_o"], case["rays_d"])
    for name, image in images.items():
        torch.testing.assert_close(image, case[name], **TOLERANCE)
    shape = case["comp_rgb_fg"].shape
    torch.testing.assert_close(view.rgb.view(shape), case["comp_rgb_fg"], **TOLERANCE)
    normal = F.normalize(view.normal, dim=-1).view(shape)
    seen = case["opacity"][..., 0] > 0.01  # elsewhere normals are numerically undefined
    torch.testing.assert_close(normal[seen], case["comp_normal"][seen], **TOLERANCE)
    torch.testing.assert_close(view.weights.flatten(0, 1), case["weights"], **TOLERANCE)
    saved = len(case["sdf_grad"])  # rays; the file holds the first ones
    torch.testing.assert_close(view.gradients.flatten(0, 1)[:saved], case["sdf_grad"], atol=3e-4, rtol=0)
    assert view.eikonal().item() == pytest.approx(case["loss_eikonal"].item(), abs=1e-6)
    assert sparsity(view.opacity).item() == pytest.approx(case["loss_sparsity"].item(), abs=1e-6)


@each_file("volume/patch_case_*.safetensors")
def test_patch_matches_the_public_implementation(file, monkeypatch):
    case, settings = load_file(file), settings_of(file.parent)
    drawn = iter(case["patch_xy"])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: next(drawn)[None])
    images, view = render_patched(
        lambda origins, directions: images_of(case, settings["renderer_cfg"], origins, directions),
        case["rays_o"],
        case["rays_d"],
        settings["patch"]["patch_size"],
        settings["patch"]["global_downsample"],
    )
    for name, image in images.items():
        torch.testing.assert_close(image, case[name], **TOLERANCE)
    assert view.edges.diff(dim=-1).numel() == case["n_global_samples"]
    assert view.eikonal().item() == pytest.approx(case["loss_eikonal"].item(), abs=1e-6)
    assert sparsity(images["opacity"]).item() == pytest.approx(case["loss_sparsity"].item(), abs=1e-6)


def slow_edges(edges, share, count, within):
    """Scalar version of importance_edges for one ray."""
    at = []
    for step in range(count):
        wanted = share[0] + (step + within) / count * (share[-1] - share[0])
        right = next(i for i in range(1, len(share)) if share[i] > wanted)
        low, high = share[right - 1], share[right]
        at.append(edges[right - 1] + (edges[right] - edges[right - 1]) * (wanted - low) / (high - low))
    begin, finish = at[0] - (at[1] - at[0]) / 2, at[-1] + (at[-1] - at[-2]) / 2
    middle = [(a + b) / 2 for a, b in itertools.pairwise(at)]
    return [max(begin, edges[0]), *middle, min(finish, edges[-1])]


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def slow_ray(origin, direction, sharpness, proposal, importance, within):
    """Scalar version of render_volume for one ray: opacity, depth, rgb, normal."""

    def interval(start, end):
        point = (origin + (start + end) / 2 * direction).requires_grad_()
        sdf, rgb = field(point)
        normal = F.normalize(torch.autograd.grad(sdf, point)[0], dim=-1)
        return sdf.item(), rgb.detach(), normal

    def alpha(sdf, change):
        before, after = sigmoid(sharpness * (sdf + change / 2)), sigmoid(sharpness * (sdf - change / 2))
        return min(max((before - after + 1e-5) / (before + 1e-5), 0), 1)

    even = [
        0.1 + 3.9 * edge for edge in slow_edges([0.0, 1.0], [0.0, 1.0], proposal, within)
    ]  # clamped to the range
    through, share = 1.0, []
    for start, end in itertools.pairwise(even):
        share.append(1 - through)
        density = alpha(interval(start, end)[0], 2 * 1.732 / 64) / (2 * 1.732 / 64)
        through *= math.exp(-density * (end - start))
    edges = sorted(even + slow_edges(even, [*share, 1.0], importance, within))
    through, opacity, depth, rgb, summed = 1.0, 0.0, 0.0, torch.zeros(3), torch.zeros(3)
    for start, end in itertools.pairwise(edges):
        sdf, color, normal = interval(start, end)
        stopped = alpha(sdf, max(-(normal @ direction).item(), 0) * (end - start))
        weight = through * stopped
        through *= 1 - stopped
        opacity, depth = opacity + weight, depth + weight * (start + end) / 2
        rgb, summed = rgb + weight * color, summed + weight * normal
    return torch.cat((torch.tensor([opacity, depth]), rgb, summed))


def some_rays(count, dtype=torch.float64):
    origins, directions = orbit([10.0, 130.0], 20.0, 1.6, 60.0, dtype=dtype).rays(16, 16)
    chosen = torch.randperm(512)[:count]
    return origins.reshape(1, -1, 3)[:, chosen], directions.reshape(1, -1, 3)[:, chosen]


def test_rays_match_the_slow_twin():
    origins, directions = some_rays(12)
    view = render_volume(field, origins, directions, sharpness=40.0, proposal=20, importance=12)
    parts = torch.cat((view.opacity[..., None], view.depth[..., None], view.rgb, view.normal), -1)[0]
    twin = torch.stack(
        [slow_ray(o, d, 40.0, 20, 12, 0.5) for o, d in zip(origins[0], directions[0], strict=True)]
    )
    assert (twin[:, 0] > 0.5).any()
    assert (twin[:, 0] < 0.1).any()
    torch.testing.assert_close(parts, twin.double(), atol=1e-6, rtol=0)


def test_jittered_edges_match_the_slow_twin():
    edges = torch.linspace(0, 1, 9, dtype=torch.float64).square()
    share = F.pad(torch.rand(5, 8, dtype=torch.float64).cumsum(-1), (1, 0))
    jitter = torch.rand(5, dtype=torch.float64)
    fast = importance_edges(edges.expand(5, -1), share, 7, jitter)
    twin = [slow_edges(edges.tolist(), s.tolist(), 7, j.item()) for s, j in zip(share, jitter, strict=True)]
    torch.testing.assert_close(fast, torch.tensor(twin, dtype=torch.float64))
    assert (fast.diff(dim=-1) > 0).all()


def test_jitter_differs_per_ray_and_depends_on_the_generator():
    rays = some_rays(20)

    def edges(seed):
        return render_volume(field, *rays, jitter=torch.Generator().manual_seed(seed)).edges[0]

    assert torch.equal(edges(1), edges(1))
    assert len(edges(1)[:, 5].unique()) == 20
    assert not torch.equal(edges(1), edges(2))
    assert edges(1).min() >= 0.1
    assert edges(1).max() <= 4.0


def test_gradients_reach_the_field():
    origins, directions = some_rays(40)
    radius = torch.tensor([0.4, 0.1, -0.2], dtype=torch.float64, requires_grad=True)

    def ball(points):
        x, y, _ = points.unbind(-1)
        sdf = points.norm(dim=-1) - radius[0] + radius[1] * (5 * x).sin()
        return sdf, torch.stack((x, y, radius[2] * y), -1).sigmoid()

    def loss():
        # At low sharpness, the sample positions, which have no gradient, barely matter.
        view = render_volume(ball, origins, directions, sharpness=4.0, proposal=200, importance=10)
        return view.depth.mean() + view.rgb.mean() + view.normal[..., 0].mean() + view.eikonal()

    slopes = torch.autograd.grad(loss(), radius)[0]
    for i in range(3):
        ends = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                radius[i] += step
            ends.append(loss().item())
            with torch.no_grad():
                radius[i] -= step
        assert slopes[i].item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-2, abs=1e-5)


def test_finite_differences_are_close_to_the_gradient():
    rays = some_rays(60)
    exact = render_volume(field, *rays)
    near = render_volume(field, *rays, sdf=lambda points: field(points)[0], difference=1e-3)
    assert (near.gradients - exact.gradients).abs().max() < 1e-4
    assert (near.opacity - exact.opacity).abs().max() < 1e-4


def test_color_gradient_scale_affects_colours_only():
    rays = some_rays(30)

    def slopes(share):
        color = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        move = torch.zeros((), dtype=torch.float64, requires_grad=True)
        view = render_volume(
            lambda points: (field(points)[0] + move, field(points)[1] + color), *rays, color_gradient=share
        )
        return torch.autograd.grad(view.rgb.square().sum(), (color, move))

    (color, move), (less, same) = slopes(1.0), slopes(0.25)
    torch.testing.assert_close(less, 0.25 * color)
    torch.testing.assert_close(same, move)


def test_no_graph_is_kept_without_gradients():
    with torch.no_grad():
        view = render_volume(field, *some_rays(5))
    assert not view.rgb.requires_grad
    assert not view.gradients.requires_grad
    assert view.opacity.max() > 0.9


def test_camera_normals_of_a_ball_face_the_camera():
    cameras = orbit([35.0], 25.0, 2.0)
    normal = cameras.c2w[:, :3, 2]
    shown = camera_normals(normal, torch.ones(1), cameras.c2w)
    torch.testing.assert_close(shown, torch.tensor([[0.5, 0.5, 1.0]]))
    right = camera_normals(3 * cameras.c2w[:, :3, 0], torch.ones(1), cameras.c2w)
    torch.testing.assert_close(right, torch.tensor([[0.0, 0.5, 0.5]]))  # x is negated
    torch.testing.assert_close(camera_normals(normal * 0, torch.zeros(1), cameras.c2w), shown)


def test_patch_has_full_resolution():
    origins, directions = orbit([0.0, 90.0], 20.0, 2.0).rays(24, 24)

    def render(at, towards):
        return {"image": (40 * towards).sin()}, at.shape[1]

    images, side = render_patched(render, origins, directions, 9, 4, torch.Generator().manual_seed(4))
    assert side == 6
    exact = ((images["image"] - (40 * directions).sin()).abs().amax(-1) < 1e-6).all(0)
    rows, columns = exact.nonzero().unbind(1)
    assert exact.sum() == 81
    assert rows.max() - rows.min() == 8
    assert columns.max() - columns.min() == 8


def test_invalid_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\[B, R, 3\]"):
        render_volume(field, torch.zeros(2, 3), torch.zeros(2, 3))
    rays = orbit([0.0], 20.0, 2.0).rays(8, 8)
    with pytest.raises(ValueError, match="8 x 8"):
        render_patched(lambda o, d: ({}, None), *rays, 8, 3)


def grid_sample_is_twice_differentiable():
    at = torch.zeros(1, 1, 1, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(
        F.grid_sample(torch.ones(1, 1, 2, 2), at, align_corners=False).sum(), at, create_graph=True
    )
    try:
        slope.sum().backward()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("difference", [None, 0.01])
def test_optimization_fits_planes_to_views(difference):
    if difference is None and not grid_sample_is_twice_differentiable():
        pytest.skip(f"torch {torch.__version__} has no second derivative of grid_sample")
    config = GeneratorConfig(plane_channels=4, mlp_width=16, mlp_activation="softplus")
    fields, planes = FieldDecoder(config), 0.1 * torch.randn(1, 6, 4, 8, 8)
    planes.requires_grad_()

    def ask(points):
        sdf, _, rgb = fields(planes, points)
        return sdf, rgb

    losses = []
    optimizer = torch.optim.Adam([planes, *fields.sdf.parameters()], 0.02)
    rays = some_rays(60, torch.float32)
    with torch.no_grad():
        wanted = render_volume(field, *rays)
    for _ in range(15):
        view = render_volume(ask, *rays, proposal=32, importance=16, difference=difference)
        loss = (view.opacity - wanted.opacity).square().mean() + (view.rgb - wanted.rgb).square().mean()
        loss = loss + (view.normal - wanted.normal).square().mean() + 0.1 * view.eikonal()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
