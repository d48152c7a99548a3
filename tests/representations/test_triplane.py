"""The field decoder against the public numbers, and `TriplaneField`'s fast paths against the decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.fields import random_field, released_fields
from tests.helpers.parity_files import each_file
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField, node_axis


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference relative to the largest magnitude; a trailing 1 in `theirs` is ignored."""
    theirs = theirs.reshape(ours.shape)
    return float((ours - theirs).abs().max() / theirs.abs().max())


def awkward_points(count: int) -> torch.Tensor:
    """Points in and around the box, with its corners, the origin, and one far away."""
    special = torch.tensor([[1.0, 1, 1], [-1, -1, 1], [0, 0, 0], [1, 0, 0], [1.05, -1.2, 0.3], [1e6, 0, -9]])
    return torch.cat((special, torch.rand(count, 3) * 2.4 - 1.2))


@each_file("generator/case_*.safetensors")
def test_field_matches_the_released_numbers(file: Path) -> None:
    fields = released_fields(file.parent)
    case = load_file(file)
    planes, points = case["planes"], case["points"]
    with torch.no_grad():
        geometry, texture = fields.features(planes, points)
        sdf, offset, rgb = fields(planes, points)
    assert relative(geometry, case["enc_geo"]) < 1e-5
    assert relative(texture, case["enc_tex"]) < 1e-5
    assert relative(sdf, case["sdf"]) < 1e-5
    assert relative(offset, case["deformation"]) < 1e-5
    assert relative(rgb, case["rgb"]) < 1e-5
    for index in range(len(planes)):
        field = TriplaneField(planes[index], fields)
        assert relative(field.sdf(points[index]), case["sdf"][index]) < 1e-5
        assert relative(field.offset(points[index]), case["deformation"][index]) < 1e-5
        assert relative(field.rgb(points[index]), case["rgb"][index]) < 1e-5
        for key in case:
            if key.startswith("grid") and key.endswith("_sdf"):
                resolution = int(key[4:-4])
                assert relative(field.sdf_grid(resolution), case[key][index]) < 1e-5
                nodes = torch.arange(resolution**3)
                offsets = case[f"grid{resolution}_deformation"][index]
                assert relative(field.offset_at(nodes, resolution), offsets) < 1e-5


@pytest.mark.parametrize("activation", ["relu", "silu", "softplus"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_fast_paths_match_forward(activation: str, bias: bool, layers: int) -> None:
    field = random_field((9, 14), mlp_activation=activation, mlp_bias=bias, mlp_layers=layers)
    points = awkward_points(5000)
    sdf, offset, rgb = field.fields(field.planes[None], points[None])
    torch.testing.assert_close(field.sdf(points), sdf[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(field.offset(points), offset[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(field.rgb(points), rgb[0], atol=1e-5, rtol=1e-5)


def test_grid_matches_points() -> None:
    field = random_field((9, 14), scale=2)
    resolution = 21
    axis = node_axis(resolution, torch.device("cpu"))
    points = torch.cartesian_prod(axis, axis, axis)
    grid = field.sdf_grid(resolution)
    assert grid.shape == (resolution,) * 3
    torch.testing.assert_close(grid.flatten(), field.sdf(points), atol=2e-5, rtol=1e-5)
    nodes = torch.randperm(resolution**3)[:1000]
    assert torch.equal(field.sdf_at(nodes, resolution), grid.flatten()[nodes])
    torch.testing.assert_close(
        field.offset_at(nodes, resolution), field.offset(points[nodes]), atol=2e-5, rtol=1e-5
    )


def test_gradients_of_forward() -> None:
    fields = FieldDecoder(GeneratorConfig(plane_channels=2, mlp_width=3, mlp_activation="softplus")).double()
    planes = torch.randn(2, 6, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    points = (torch.rand(2, 3, 3, dtype=torch.float64) * 1.8 - 0.9).requires_grad_()
    assert torch.autograd.gradcheck(fields, (planes, points))
    sum(part.sum() for part in fields(planes, points)).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in fields.parameters())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_planes_work_in_float32(kind: torch.dtype) -> None:
    exact = random_field()
    half = TriplaneField(exact.planes.to(kind), exact.fields)
    rounded = TriplaneField(half.planes.float(), exact.fields)
    points = awkward_points(100)
    for name in ("sdf", "offset", "rgb"):
        answer = getattr(half, name)(points)
        assert answer.dtype == torch.float32
        assert torch.equal(answer, getattr(rounded, name)(points))
    sdf, _, _ = exact.fields(half.planes[None], points[None])
    torch.testing.assert_close(sdf[0], half.sdf(points), atol=1e-5, rtol=1e-5)


def test_no_points() -> None:
    field = random_field()
    nothing = torch.zeros(0, 3)
    assert field.sdf(nothing).shape == (0,)
    assert field.rgb(nothing).shape == (0, 3)


def test_works_in_inference_mode() -> None:
    field = random_field()
    with torch.inference_mode():
        inside = field.rgb(awkward_points(10)[:3])
    assert torch.equal(inside, field.rgb(awkward_points(10)[:3]))


def double_fields(activation: str, bias: bool) -> tuple[FieldDecoder, torch.Tensor]:
    """Fields and planes in float64, planes not square."""
    config = GeneratorConfig(
        plane_channels=3, mlp_width=6, mlp_activation=activation, mlp_bias=bias, sphere_radius=0.4
    )
    return FieldDecoder(config).double(), torch.randn(2, 6, 3, 7, 9, dtype=torch.float64, requires_grad=True)


def same_slopes(
    fields: FieldDecoder, planes: torch.Tensor, found: torch.Tensor, wanted: torch.Tensor
) -> None:
    """Values are the same, and gradients of planes and all weights that either depends on."""
    torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(found)
    learn = [planes, *fields.parameters()]
    ours, theirs = (
        torch.autograd.grad((out * weights).sum(), learn, allow_unused=True) for out in (found, wanted)
    )
    assert sum(slope is not None for slope in ours) > len(learn) // 3
    for mine, plain in zip(ours, theirs, strict=True):
        assert (mine is None) == (plain is None)
        if mine is not None:
            torch.testing.assert_close(mine, plain)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("bias", [False, True])
def test_sdf_grid_matches_forward_with_gradients(activation: str, bias: bool) -> None:
    fields, planes = double_fields(activation, bias)
    axis = torch.linspace(-1.1, 0.9, 6, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis, axis).expand(2, -1, -1)
    same_slopes(fields, planes, fields.sdf_lattice(planes, axis), fields(planes, points)[0].view(2, 6, 6, 6))


@pytest.mark.parametrize("bias", [False, True])
def test_colours_match_forward_with_gradients(bias: bool) -> None:
    fields, planes = double_fields("relu", bias)
    points = torch.rand(2, 50, 3, dtype=torch.float64) * 2.4 - 1.2
    same_slopes(fields, planes, fields.rgb(planes, points), fields(planes, points)[2])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_grids_and_colours_of_half_precision_planes_are_float32(kind: torch.dtype) -> None:
    exact = random_field()
    half = exact.planes.to(kind)[None]
    axis = torch.linspace(-1, 1, 5)
    for ask, at in ((exact.fields.sdf_lattice, axis), (exact.fields.rgb, torch.rand(1, 9, 3))):
        answer = ask(half, at)
        assert answer.dtype == torch.float32
        assert torch.equal(answer, ask(half.float(), at))
