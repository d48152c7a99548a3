"""Triplane renderings: correctness on a known field, and gradients to shape and colour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import toy
from triplaneturbo.distill.losses import rendering_loss
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.representations import triplane_rendering as rendering
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField
from triplaneturbo.representations.triplane_rendering import (
    deformed_surface,
    enforce_surface,
    query_colors,
    surface,
    volume,
)

RADIUS = 0.6


@pytest.fixture
def ball() -> tuple[FieldDecoder, Tensor]:
    """A field with the SDF of a ball for any planes, and varying colours."""
    fields = FieldDecoder(GeneratorConfig(plane_channels=4, mlp_width=8, mlp_bias=True, sphere_radius=RADIUS))
    torch.nn.init.zeros_(fields.sdf[-1].weight)
    torch.nn.init.zeros_(fields.sdf[-1].bias)
    torch.nn.init.zeros_(fields.offset[-1].weight)
    torch.nn.init.zeros_(fields.offset[-1].bias)
    return fields, torch.randn(2, 6, 4, 8, 8)


def scenes() -> SceneBatch:
    return toy.draw(np.random.default_rng(0), 2, 1)[0]


def see(fields: FieldDecoder, planes: Tensor, where: SceneBatch, **how):
    settings = {"size": 32, "stride": 1, "first": (0, 0), "nodes": 48, "half": 0.9, "sharpness": 200.0,
                "color_shrink": 1.0, "jitter": torch.Generator().manual_seed(0)}  # fmt: skip
    return volume(fields, planes, where, **{**settings, **how})


def hits(where: SceneBatch, size: int = 32) -> tuple[Tensor, Tensor]:
    """Return analytic ray intersections (nan if none): points [B, V, h, w, 3] and depth."""
    origins, directions = where.cameras.rays(size, size)
    along = -(origins * directions).sum(-1)
    aside = (origins.square().sum(-1) - along**2) - RADIUS**2
    distance = along - torch.where(aside < 0, -aside, torch.nan).sqrt()
    points = origins + directions * distance[..., None]
    depth = -torch.einsum("nhwi,ni->nhw", points - origins, where.cameras.c2w[:, :3, 2])
    return points.unflatten(0, (2, 4)), depth.unflatten(0, (2, 4))


def test_volume_and_surface_render_a_ball(ball: tuple[FieldDecoder, Tensor]) -> None:
    fields, planes = ball
    where = scenes()
    points, depth = hits(where)
    inside = ~torch.isnan(depth)
    inner = inside & (depth < depth[inside].quantile(0.8))  # away from the silhouette
    with torch.no_grad():
        seen = see(fields, planes, where).seen
        drawn = surface(fields, planes, where, see(fields, planes, where).sdf, 0.9, 32)
        truth = torch.stack(
            [fields.rgb(planes[i : i + 1], points[i].nan_to_num().reshape(1, -1, 3))[0] for i in range(2)]
        ).view_as(points)
    for one in (seen, drawn):
        assert ((one.opacity > 0.5) == inside).float().mean() > 0.99
        assert (one.rgb - truth)[inner].abs().max() < 0.03
        outside = ~inside & (one.opacity < 0.01)
        ground = where.background[:, None, None, None].expand_as(one.rgb)
        assert (one.rgb - ground)[outside].abs().max() < 0.02
    assert (seen.depth - depth)[inner].abs().max() < 0.02
    normal = torch.nn.functional.normalize(seen.normal, dim=-1)
    assert (normal - points / RADIUS)[inner].abs().max() < 0.05


def test_strided_pixels_match_the_full_image(ball: tuple[FieldDecoder, Tensor]) -> None:
    fields, planes = ball
    where = scenes()
    whole, part = (see(fields, planes, where, stride=s, first=f).seen for s, f in ((1, (0, 0)), (4, (3, 1))))
    some = (..., slice(3, None, 4), slice(1, None, 4))
    assert (part.opacity - whole.opacity[some]).abs().max() < 0.05  # the jitter differs
    assert (part.depth - whole.depth[some])[part.opacity > 0.9].abs().max() < 0.02
    sdf = see(fields, planes, where).sdf
    drawn, strided = (
        surface(fields, planes, where, sdf, 0.9, 32, s, f) for s, f in ((1, (0, 0)), (4, (3, 1)))
    )
    assert torch.equal(strided.opacity, drawn.opacity[some])
    assert (strided.rgb - drawn.rgb[:, :, 3::4, 1::4]).abs().max() < 1e-5


def test_color_gradient_is_scaled(ball: tuple[FieldDecoder, Tensor]) -> None:
    fields, planes = ball
    where = scenes()
    gradients = []
    for shrink in (1.0, 0.25):
        view = see(fields, planes, where, color_shrink=shrink)
        parameters = list(fields.color.parameters())
        gradients.append(torch.autograd.grad(view.seen.rgb.square().sum(), parameters))
    for full, less in zip(*gradients, strict=True):
        assert torch.allclose(less, 0.25 * full, rtol=1e-4, atol=1e-5)


def test_surface_gradients_reach_colours_only(ball: tuple[FieldDecoder, Tensor]) -> None:
    fields, planes = ball
    planes.requires_grad_()
    view = see(fields, planes, scenes())
    drawn = surface(fields, planes, scenes(), view.sdf, 0.9, 32)
    (gradient,) = torch.autograd.grad(drawn.rgb.sum(), planes)
    assert gradient[:, :3].abs().max() == 0
    assert gradient[:, 3:].abs().max() > 0


def test_colours_are_queried_only_where_needed(ball: tuple[FieldDecoder, Tensor]) -> None:
    fields, planes = ball
    points = torch.rand(2, 50, 3) * 2 - 1
    where = torch.rand(2, 50) < 0.5
    rgb = query_colors(fields, planes, points, where)
    assert torch.allclose(rgb[where], fields.rgb(planes, points)[where], atol=1e-6)
    assert rgb[~where].abs().max() == 0


def test_planes_learn_two_objects_from_their_teachers() -> None:
    """Scores, renderers and the field learn shapes and colours without a generator."""
    student = toy.student()
    fields = student.generator.heads["default"].fields
    planes = torch.nn.Parameter(torch.randn(2, 6, 8, 16, 16) * 0.1)
    optimizer = torch.optim.Adam([planes, *fields.parameters()], lr=1e-2)
    for i in range(60):
        rng, noise = np.random.default_rng(i), torch.Generator().manual_seed(i)
        where = toy.draw(rng, 2, 1)[0]
        loss = rendering_loss(
            student.generator, planes, toy.teachers(), where, toy.SETTINGS, i / 60, rng, noise, {}
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    where = replace(scenes(), background=torch.full((2, 3), 0.5))
    with torch.no_grad():
        view = see(fields, planes, where, half=1.0, sharpness=60.0)
        drawn = surface(fields, planes, where, view.sdf, 1.0, 32)
        truth = toy.data(where.prompts, where, view.seen, ("rgb",))[0]
    both = (drawn.opacity > 0.5) & (truth.opacity > 0.5)
    either = (drawn.opacity > 0.5) | (truth.opacity > 0.5)
    assert both.sum() / either.sum() > 0.85
    assert (drawn.rgb - truth.rgb)[both].abs().mean() < 0.05


def bumpy(nodes: int = 40) -> Tensor:
    """Return the SDF grid of a bumpy ball over [-0.9, 0.9]^3, repeated [2, R, R, R]."""
    axis = torch.linspace(-0.9, 0.9, nodes)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    away = (x**2 + y**2 + z**2).sqrt()
    return (away - RADIUS + 0.03 * torch.sin(5 * x + 3 * y) * torch.cos(4 * z)).expand(2, -1, -1, -1)


def eroded(opacity: Tensor) -> Tensor:
    """Erode masks [B, V, H, W] by two pixels: coverage changes at the silhouette."""
    return -torch.nn.functional.max_pool2d(-opacity, 5, 1, 2)


def assert_shows_ball(drawn: Renderings, points: Tensor, depth: Tensor) -> None:
    """Compare depths and normals with the hits of rays, relative to the ball's centre."""
    inside = ~torch.isnan(depth)
    inner = inside & (depth < depth[inside].quantile(0.8))  # away from the silhouette
    assert drawn.normal is not None
    assert drawn.depth is not None
    assert (drawn.depth - depth)[inner].abs().max() < 0.005
    normal = torch.nn.functional.normalize(drawn.normal, dim=-1)
    assert (normal - points / RADIUS)[inner].abs().max() < 0.02


def test_surface_renders_normals_and_depths(ball: tuple[FieldDecoder, Tensor]) -> None:
    fields, planes = ball
    where = scenes()
    points, depth = hits(where)
    sdf = see(fields, planes, where).sdf
    drawn = surface(fields, planes, where, sdf, 0.9, 32, shape_shrink=0.001)
    assert_shows_ball(drawn, points, depth)
    plain = surface(fields, planes, where, sdf, 0.9, 32)
    assert (plain.normal, plain.depth) == (None, None)
    assert torch.equal(plain.rgb, drawn.rgb)
    strided = surface(fields, planes, where, sdf, 0.9, 32, 4, (3, 1), 0.001)
    some = (..., slice(3, None, 4), slice(1, None, 4))
    assert torch.equal(strided.opacity, drawn.opacity[some])
    torch.testing.assert_close(strided.depth, drawn.depth[some], rtol=0, atol=1e-5)
    torch.testing.assert_close(strided.normal, drawn.normal[:, :, 3::4, 1::4], rtol=0, atol=1e-5)


def test_grid_gradients_of_surface_normals_and_depths(ball: tuple[FieldDecoder, Tensor]) -> None:
    """Against finite differences, away from the silhouette, where coverage changes."""
    fields, planes = ball
    where, sdf = scenes(), bumpy()
    draw = torch.Generator().manual_seed(1)
    coarse = torch.randn(2, 1, 5, 5, 5, generator=draw)
    nudge = torch.nn.functional.interpolate(coarse, sdf.shape[1:], mode="trilinear", align_corners=True)[:, 0]
    weights = torch.randn(2, 4, 32, 32, 4, generator=draw)
    inner = eroded(surface(fields, planes, where, sdf, 0.9, 32).opacity)

    def shown(sdf: Tensor, shrink: float) -> tuple[Tensor, Tensor]:
        drawn = surface(fields, planes, where, sdf, 0.9, 32, shape_shrink=shrink)
        assert drawn.normal is not None
        assert drawn.depth is not None
        parts = torch.cat((drawn.normal, drawn.depth[..., None]), -1) * inner[..., None] * weights
        return parts[..., :3].sum(), parts[..., 3].sum()

    step = 2e-3
    with torch.no_grad():
        ends = [shown(sdf + sign * step * nudge, 1.0) for sign in (1, -1)]
    for which, (more, less) in enumerate(zip(*ends, strict=True)):
        leaf = sdf.clone().requires_grad_()
        gradients = [torch.autograd.grad(shown(leaf, shrink)[which], leaf)[0] for shrink in (1.0, 0.001)]
        slope = float((gradients[0] * nudge).sum())
        assert slope == pytest.approx(float(more - less) / (2 * step), rel=0.03)
        torch.testing.assert_close(gradients[1], 0.001 * gradients[0], rtol=1e-3, atol=1e-8)


def test_chunked_colours_match_values_and_gradients(
    ball: tuple[FieldDecoder, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields, planes = ball
    planes.requires_grad_()
    points = torch.rand(2, 300, 3) * 2 - 1
    where = torch.rand(2, 300) < 0.7
    outcomes = []
    for piece in (rendering.CHUNK, 64):
        monkeypatch.setattr(rendering, "CHUNK", piece)
        rgb = query_colors(fields, planes, points, where)
        gradients = torch.autograd.grad(rgb.square().sum(), [planes, *fields.color.parameters()])
        outcomes.append((rgb.detach(), *gradients))
    for actual, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def deformed(ball: tuple[FieldDecoder, Tensor]) -> tuple[FieldDecoder, Tensor]:
    """The ball on a grid of 40 nodes that is deformed by about half a cell."""
    fields, planes = ball
    fields.config = replace(fields.config, grid_resolution=40)
    torch.nn.init.normal_(fields.offset[-1].weight, std=0.1, generator=torch.Generator().manual_seed(2))
    fields.offset[-1].bias.data = torch.tensor([0.6, -0.4, 0.5])
    return fields, planes


def test_surface_matches_the_exported_mesh(deformed: tuple[FieldDecoder, Tensor]) -> None:
    fields, planes = deformed
    exported = extract(TriplaneField(planes[0], fields), 40)
    cell = 2 / 39
    for nodes, half, atol in ((40, 1.0, 1e-5), (70, 0.9, 0.2 * cell)):
        axis = torch.linspace(-half, half, nodes)
        with torch.no_grad():
            lattice = fields.sdf_lattice(planes[:1], axis)[0]
            vertices, undeformed, faces = deformed_surface(fields, planes[:1], lattice, half, 0.001)
        sides = [
            torch.stack((points.amin(0), points.amax(0)))
            for points in (vertices * half, undeformed * half, exported.vertices)
        ]
        assert (sides[0] - sides[2]).abs().max() < atol
        assert (sides[1] - sides[2]).abs().max() > 0.4 * cell
        if nodes == 40:
            assert torch.equal(faces, exported.faces)
            torch.testing.assert_close(vertices, exported.vertices, atol=1e-5, rtol=0)


def test_depths_and_normals_of_a_deformed_ball(ball: tuple[FieldDecoder, Tensor]) -> None:
    """A constant offset moves the ball, so it is seen as by cameras moved the other way."""
    fields, planes = ball
    offset = torch.tensor([1.5, -1.0, 2.0])
    fields.offset[-1].bias.data = offset
    where = scenes()
    shift = offset * 2 / (fields.config.grid_resolution - 1)
    c2w = where.cameras.c2w.clone()
    c2w[:, :3, 3] -= shift
    points, depth = hits(replace(where, cameras=replace(where.cameras, c2w=c2w)))
    sdf = see(fields, planes, where).sdf
    assert_shows_ball(surface(fields, planes, where, sdf, 0.9, 32, shape_shrink=0.001), points, depth)


def test_offset_gradients_of_surface_depths(deformed: tuple[FieldDecoder, Tensor]) -> None:
    """Against finite differences in the offset's bias, away from the silhouette."""
    fields, planes = deformed
    where, sdf, bias = scenes(), bumpy(), fields.offset[-1].bias
    inner = eroded(surface(fields, planes, where, sdf, 0.9, 32).opacity)
    weights = torch.randn(inner.shape, generator=torch.Generator().manual_seed(1))

    def shown(shrink: float) -> Tensor:
        depth = surface(fields, planes, where, sdf, 0.9, 32, shape_shrink=shrink).depth
        assert depth is not None
        return (depth * inner * weights).sum()

    (whole,) = torch.autograd.grad(shown(1.0), bias)
    (shrunk,) = torch.autograd.grad(shown(0.001), bias)
    torch.testing.assert_close(shrunk, 0.001 * whole, rtol=1e-3, atol=1e-8)
    step, start = 2e-2, bias.detach().clone()
    for axis in range(3):
        ends = []
        with torch.no_grad():
            for sign in (1, -1):
                bias.copy_(start)
                bias[axis] += sign * step
                ends.append(float(shown(1.0)))
            bias.copy_(start)
        assert float(whole[axis]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.03)


@pytest.mark.parametrize("value", [0.3, -0.3])
def test_grid_without_surface_gets_gradients(ball: tuple[FieldDecoder, Tensor], value: float) -> None:
    fields, planes = ball
    sdf = torch.full((2, 24, 24, 24), value, requires_grad=True)
    drawn = surface(fields, planes, scenes(), sdf, 0.9, 32, shape_shrink=0.001)
    assert drawn.depth is not None
    assert drawn.opacity.sum() > 0
    (gradient,) = torch.autograd.grad(drawn.depth.sum(), sdf)
    assert gradient.flatten(1).abs().amax(1).min() > 0


def test_grid_with_surface_is_unchanged() -> None:
    sdf = bumpy()[0]
    assert enforce_surface(sdf) is sdf


def test_surface_only_runs_have_no_volume_regularizers() -> None:
    student, where = toy.student(), toy.draw(np.random.default_rng(0), 2, 1)[0]
    settings = replace(toy.SETTINGS, eikonal=(1.0, 1.0), sparsity=(1.0, 1.0))
    planes = torch.randn(2, 6, 8, 16, 16)

    def loss(*renderings: str) -> float:
        log: dict[str, float] = {}
        value = rendering_loss(
            student.generator, planes, [], where, replace(settings, renderings=renderings), 0.5,
            np.random.default_rng(0), torch.Generator().manual_seed(0), log,
        )  # fmt: skip
        assert ("eikonal" in log) == ("volume" in renderings)
        return float(value.detach())

    assert loss("surface") == 0
    assert loss("volume", "surface") > 0
