"""The quick volume renderer: compiled loops against plain torch, and both against what is known exactly."""

import pytest
import torch
import torch.nn.functional as F

from triplaneturbo.render import grid_renderer
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.grid_renderer import eikonal, gradient, render_grid, trilinear

BACKENDS = ["numba", "torch"]


def nodes(size, dtype=torch.float32):
    """Positions of a lattice's nodes [R, R, R, 3]."""
    axis = torch.linspace(-1, 1, size, dtype=dtype)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def bumps(size, dtype=torch.float32):
    """Two different bumpy solids [2, R, R, R]: the second cut by the cube, without any symmetry."""
    x, y, z = nodes(size, dtype).unbind(-1)
    round_ = (x**2 + y**2 + z**2).sqrt()
    first = round_ - 0.52 + 0.07 * (6.1 * x + 0.2).sin() * (5.3 * y).cos() * (4.2 * z + 0.3).sin()
    second = (
        ((x - 0.71) ** 2 + (y + 0.13) ** 2 + 1.3 * (z - 0.4) ** 2).sqrt() - 0.63 + 0.03 * (9 * y + x).sin()
    )
    return torch.stack((first, second))


def rays_of(sdf, count, distance=2.6, size=24):
    """Some of the rays of four views, other ones for each item: origins and directions [B, N, 3]."""
    origins, directions = orbit([13.0, 101.0, 187.0, 280.0], 21.0, distance, 50.0).rays(size, size)
    chosen = torch.stack([torch.randperm(4 * size**2)[:count] for _ in sdf])
    return origins.reshape(-1, 3)[chosen].to(sdf), directions.reshape(-1, 3)[chosen].to(sdf)


def render_with_gradient(sdf, origins, directions, sharpness, samples, backend, weights):
    sdf = sdf.clone().requires_grad_()
    view = render_grid(
        sdf, origins, directions, sharpness, samples, torch.Generator().manual_seed(3), backend
    )
    parts = torch.cat((view.opacity[..., None], view.depth[..., None], view.normal), -1)
    (slope,) = torch.autograd.grad((parts * weights.to(parts)).sum(), sdf)
    return parts.detach(), slope


@pytest.mark.parametrize("sharpness", [15.0, 80.0])
@pytest.mark.parametrize(("size", "samples", "distance"), [(30, 48, 2.6), (18, 31, 2.6), (21, 40, 0.6)])
def test_renderer_matches_plain_torch(size, samples, distance, sharpness):
    sdf = bumps(size)
    rays = rays_of(sdf, 400, distance)
    weights = torch.randn(2, 400, 5)
    value, slope = render_with_gradient(sdf, *rays, sharpness, samples, "numba", weights)
    exact = (part.double() for part in (sdf, *rays))
    twin_value, twin_slope = render_with_gradient(*exact, sharpness, samples, "torch", weights)
    assert (value - twin_value).abs().max() < 1e-4
    assert (slope - twin_slope).abs().max() < 1e-4 * twin_slope.abs().max()


@pytest.mark.parametrize("part", range(5))
def test_every_output_has_its_gradient(part):
    sdf = bumps(20)
    rays = rays_of(sdf, 300)
    weights = torch.randn(2, 300, 1) * F.one_hot(torch.tensor(part), 5)
    _, slope = render_with_gradient(sdf, *rays, 40.0, 40, "numba", weights)
    exact = (p.double() for p in (sdf, *rays))
    _, twin = render_with_gradient(*exact, 40.0, 40, "torch", weights)
    assert twin.abs().max() > 1
    assert (slope - twin).abs().max() < 1e-4 * twin.abs().max()


def test_gradients_match_finite_differences():
    sdf = bumps(14, torch.float64)
    rays = rays_of(sdf, 300)
    weights, way = torch.randn(2, 300, 5), torch.randn_like(sdf)
    _, slope = render_with_gradient(sdf, *rays, 20.0, 40, "torch", weights)
    up, down = (
        render_with_gradient(sdf + e * way, *rays, 20.0, 40, "torch", weights)[0] for e in (1e-6, -1e-6)
    )
    assert ((up - down) * weights).sum() / 2e-6 == pytest.approx((slope * way).sum().item(), rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sharpness", [15.0, 80.0])
def test_sphere_matches_its_analytic_image(backend, sharpness):
    sdf = (nodes(48).norm(dim=-1) - 0.6)[None]
    origins, directions = rays_of(sdf, 1000)
    view = render_grid(sdf, origins, directions, sharpness, 64, backend=backend)
    foot = (origins * directions).sum(-1)
    nearest = (origins - foot[..., None] * directions).norm(dim=-1)  # of the ray, to the middle
    expected = torch.sigmoid(-sharpness * (nearest - 0.6))
    assert (view.opacity - expected)[nearest < 0.99].abs().max() < 0.02
    hit = nearest < 0.4
    distance = -foot - (0.36 - nearest**2).clamp_min(0).sqrt()
    assert (view.distance - distance)[hit].abs().max() < 0.3 / sharpness
    points = origins + distance[..., None] * directions
    cosine = F.cosine_similarity(view.normal, points, dim=-1)
    assert cosine[hit].min() > 0.998
    assert (view.normal.norm(dim=-1) - 1)[hit].abs().max() < 1 / sharpness


@pytest.mark.parametrize("backend", BACKENDS)
def test_thin_parts_are_never_missed(backend):
    x, y, z = nodes(48).unbind(-1)
    plate = (x - 0.013).abs() - 0.05
    leg = ((y - 0.3).square() + (z + 0.213).square()).sqrt() - 0.05
    sdf = torch.stack((plate, leg))
    eyes = F.normalize(torch.randn(500, 3), dim=-1) * 2.5
    eyes[:, 0] = eyes[:, 0].sign() * eyes[:, 0].abs().clamp_min(1.2)
    targets = torch.stack((torch.rand(500, 3) - 0.5, torch.rand(500, 3) - 0.5))
    targets[0, :, 0], targets[1, :, 1], targets[1, :, 2] = 0.013, 0.3, -0.213
    directions = F.normalize(targets - eyes, dim=-1)
    view = render_grid(sdf, eyes.expand(2, -1, -1), directions, 80.0, backend=backend)
    assert view.opacity[0].min() > 0.8
    assert view.opacity[1].min() > 0.7  # the lattice itself rounds the leg's edge off
    assert view.opacity[0].mean() > 0.93


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_cube_is_opaque(backend):
    sdf = torch.full((1, 9, 9, 9), -0.4)
    origins, directions = rays_of(sdf, 500, distance=4.0)
    view = render_grid(sdf, origins, directions, 40.0, backend=backend)
    met = ((origins + (-(origins * directions).sum(-1))[..., None] * directions).abs() < 0.9).all(-1)
    entered = (origins + view.distance[..., None] * directions)[met]
    assert met.sum() > 50
    assert view.opacity[met].min() > 0.999
    assert (entered.abs().amax(-1) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_missed_rays_have_gradients_near_the_surface(backend):
    sdf = (nodes(33).norm(dim=-1) - 0.5)[None].requires_grad_()
    origins = torch.tensor([[[2.0, 0.0, 0.55]]])
    view = render_grid(sdf, origins, torch.tensor([[[-1.0, 0.0, 0.0]]]), 30.0, backend=backend)
    assert 0.1 < view.opacity.item() < 0.3
    (slope,) = torch.autograd.grad(view.opacity.sum(), sdf)
    where = slope.abs().flatten().topk(4).indices
    assert (nodes(33).reshape(-1, 3)[where] - torch.tensor([0.0, 0.0, 0.55])).norm(dim=-1).max() < 0.1
    assert slope.sum().item() == pytest.approx(-30 * (view.opacity * (1 - view.opacity)).item(), rel=0.02)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_space_is_transparent(backend):
    sdf = torch.ones(1, 9, 9, 9, requires_grad=True)
    origins = torch.tensor([[[3.0, 0.0, 0.0], [3.0, 0.0, 0.0], [3.0, 1.5, 0.0], [-3.0, 0.0, 1.0]]])
    directions = torch.tensor([[[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.6, 0.0, 0.8]]])
    view = render_grid(sdf, origins, directions, 80.0, backend=backend)
    assert view.opacity.abs().max() < 1e-6
    assert view.distance.abs().max() < 1e-3
    assert torch.isfinite(view.normal).all()
    (view.opacity.sum() + view.distance.sum() + view.normal.sum()).backward()
    assert torch.isfinite(sdf.grad).all()


def test_jitter_depends_on_the_generator():
    sdf = bumps(20)
    rays = rays_of(sdf, 200)

    def depth(seed):
        return render_grid(sdf, *rays, 30.0, 24, torch.Generator().manual_seed(seed)).depth

    assert torch.equal(depth(1), depth(1))
    assert not torch.equal(depth(1), depth(2))
    assert (depth(1) - depth(2)).abs().mean() < 0.01


def test_optimization_fits_the_views():
    x, y, z = nodes(24).unbind(-1)
    goal = torch.maximum(torch.maximum(x.abs() - 0.6, y.abs() - 0.25), z.abs() - 0.4)[None]
    sdf = (nodes(24).norm(dim=-1) - 0.5)[None].requires_grad_()
    optimizer = torch.optim.Adam([sdf], 0.02)
    drawn = torch.Generator().manual_seed(0)
    for _ in range(60):
        rays = rays_of(sdf.detach(), 800)
        with torch.no_grad():
            wanted = render_grid(goal, *rays, 40.0)
        seen = render_grid(sdf, *rays, 25.0, jitter=drawn)
        loss = (seen.opacity - wanted.opacity).square().mean() + 0.1 * eikonal(sdf).mean()
        loss = loss + (seen.depth - wanted.depth).abs().mean() + (seen.normal - wanted.normal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def overlap(solid):
        return ((solid < 0) & (goal < 0)).sum() / ((solid < 0) | (goal < 0)).sum()

    assert overlap(nodes(24).norm(dim=-1) - 0.5) < 0.6
    assert overlap(sdf) > 0.8


def test_trilinear_interpolation_is_exact_for_trilinear_fields():
    def field(p):
        x, y, z = p.unbind(-1)
        return torch.stack((1 + 2 * x - y * z, x * y * z, z), -1)

    grid = field(nodes(7, torch.float64))[None].repeat(2, 1, 1, 1, 1)
    points = torch.rand(2, 5, 4, 3, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(trilinear(grid, points), field(points))
    torch.testing.assert_close(trilinear(grid[..., 1], points), field(points)[..., 1])


def test_eikonal_loss_is_zero_for_distance_fields():
    way = torch.tensor([0.6, 0.0, 0.8])
    plane = (nodes(12) @ way)[None]
    sphere = (nodes(40).norm(dim=-1) - 0.5)[None]
    assert eikonal(plane).max() < 1e-10
    assert eikonal(sphere).max() < 0.01
    torch.testing.assert_close(eikonal(torch.cat((plane, 3 * plane))), torch.tensor([0.0, 4.0]))
    torch.testing.assert_close(gradient(plane)[0], way.expand(12, 12, 12, 3))
    for backend in BACKENDS:
        flat = torch.zeros(1, 5, 5, 5, requires_grad=True)
        (slope,) = torch.autograd.grad(eikonal(flat, backend).sum(), flat)
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("size", [2, 3, 17])
def test_eikonal_loss_matches_plain_torch(size):
    sdf, weights = torch.randn(2, size, size, size), torch.tensor([1.0, -2.0])
    ours, twin = sdf.clone().requires_grad_(), sdf.double().requires_grad_()
    value, exact = eikonal(ours, "numba"), eikonal(twin, "torch")
    torch.testing.assert_close(value, exact.float())
    (value * weights).sum().backward()
    (exact * weights).sum().backward()
    torch.testing.assert_close(ours.grad, twin.grad.float(), atol=1e-5, rtol=1e-4)
    assert twin.grad.abs().max() > 0.01


@pytest.mark.parametrize(
    ("sdf", "rays", "samples", "complaint"),
    [
        ((2, 8, 8, 7), (2, 5, 3), 48, r"\[B, R, R, R\]"),
        ((2, 8, 8, 8), (1, 5, 3), 48, r"\[2, N, 3\]"),
        ((2, 8, 8, 8), (2, 5, 4), 48, r"\[2, N, 3\]"),
        ((2, 8, 8, 8), (2, 5, 3), 0, "positive"),
    ],
)
def test_invalid_shapes_are_refused(sdf, rays, samples, complaint):
    with pytest.raises(ValueError, match=complaint):
        render_grid(torch.ones(sdf), torch.ones(rays), torch.ones(rays), 20.0, samples)


def test_chunked_rays_match(monkeypatch: pytest.MonkeyPatch) -> None:
    axis = torch.linspace(-1, 1, 12)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    sdf = ((x**2 + y**2 + z**2).sqrt() - 0.6)[None].requires_grad_()
    directions = torch.nn.functional.normalize(
        torch.randn(1, 50, 3) * 0.3 - torch.tensor([1.0, 0, 0]), dim=-1
    )
    origins = torch.tensor([2.0, 0, 0]).expand(1, 50, 3)
    outcomes = []
    for rays in (grid_renderer.RAY_CHUNK, 16):
        monkeypatch.setattr(grid_renderer, "RAY_CHUNK", rays)
        view = grid_renderer.render_grid(sdf, origins, directions, 20.0, 12, backend="torch")
        total = view.opacity.sum() + view.depth.sum() + view.normal.square().sum()
        outcomes.append((view.opacity, view.depth, view.normal, *torch.autograd.grad(total, sdf)))
    for found, wanted in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
