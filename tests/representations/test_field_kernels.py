"""Compiled queries of triplane fields, compared with their twin in torch."""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import pytest
import torch

from tests.helpers.fields import mushroom, random_field
from triplaneturbo.representations import field_kernels
from triplaneturbo.representations.triplane import TriplaneField

NAMES = ("sdf", "offset", "color")


def compare(field: TriplaneField, name: str, points: torch.Tensor) -> None:
    table, size = field._texel_table(name), tuple(field.planes.shape[-2:])
    mlp = getattr(field.fields, name)
    found = field_kernels.query(points, table, size, field_kernels.pack(mlp), mlp[-1].out_features)
    torch.testing.assert_close(found, field.query_in_torch(name, points), atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_random_fields_match_torch(layers: int, bias: bool, name: str) -> None:
    field = random_field((9, 16), mlp_layers=layers, mlp_bias=bias)
    compare(field, name, torch.randn(1000, 3))  # some of them outside of the planes


@pytest.mark.parametrize("width", [1, 7, 8, 64])
def test_any_width_matches_torch(width: int) -> None:
    field = random_field(mlp_width=width)
    for name in NAMES:
        compare(field, name, torch.rand(100, 3) * 2 - 1)


def test_corners_and_edges_of_the_planes_match_torch() -> None:
    values = torch.tensor([-1.5, -1.0625, -1.0, -0.9375, 0.0, 0.9375, 1.0, 1.0625, 1.5])
    compare(random_field(), "color", torch.cartesian_prod(values, values, values))


def test_a_learned_field_matches_torch() -> None:
    for name in NAMES:
        compare(mushroom(), name, torch.rand(20_000, 3) * 2 - 1)


def test_points_do_not_depend_on_each_other_or_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    field, points = mushroom(), torch.rand(20_001, 3) * 2 - 1
    whole = field.rgb(points)
    assert torch.equal(field.rgb(points[5:70]), whole[5:70])
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(field.rgb(points), whole)


def test_points_that_are_not_finite_read_within_the_planes() -> None:
    nan, inf = float("nan"), float("inf")
    field = random_field()
    found = field.rgb(torch.tensor([[nan, nan, nan], [inf, 0.0, -inf], [1e30, -1e30, 0.0]]))
    outside = field.rgb(torch.tensor([[9.0, 9.0, 9.0]]))
    assert torch.equal(found[0], outside[0])
    assert found.isfinite().all()


@pytest.mark.parametrize("width", [1, 7, 64])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_nodes_match_torch(layers: int, bias: bool, width: int) -> None:
    field = random_field((9, 16), mlp_layers=layers, mlp_bias=bias, mlp_width=width)
    resolution = 23
    nodes = torch.randperm(resolution**3)[:1000]
    for name in ("sdf", "offset"):
        mlp, table = getattr(field.fields, name), field.node_table(name, resolution)
        found = field_kernels.query_nodes(
            nodes, resolution, table, field_kernels.pack(mlp), mlp[-1].out_features
        )
        wanted = field.query_nodes_in_torch(name, nodes, resolution)
        torch.testing.assert_close(found, wanted, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("resolution", [2, 23, 96, 150])  # lines of nodes shorter and longer than a block
@pytest.mark.parametrize("width", [7, 32])
def test_the_grid_is_bit_identical_to_its_nodes(width: int, resolution: int) -> None:
    field = random_field((9, 16), mlp_width=width)
    nodes = torch.randperm(resolution**3)[:5000]
    assert torch.equal(field.sdf_grid(resolution).flatten()[nodes], field.sdf_at(nodes, resolution))


def test_the_grid_does_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    field = mushroom()
    grid = field.sdf_grid(50)
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(field.sdf_grid(50), grid)


def test_other_activations_are_evaluated_by_torch() -> None:
    field, points, nodes = random_field(mlp_activation="silu"), torch.rand(10, 3), torch.arange(10)
    with ExitStack() as stack:
        for kernel in ("query", "query_nodes", "query_grid"):
            stack.enter_context(patch.object(field_kernels, kernel, side_effect=AssertionError))
        assert torch.equal(field.offset(points), field.query_in_torch("offset", points))
        assert torch.equal(field.offset_at(nodes, 5), field.query_nodes_in_torch("offset", nodes, 5))
        assert torch.equal(field.sdf_grid(5).flatten()[:10], field.sdf_at(nodes, 5))
        for query in (lambda f: f.offset(points), lambda f: f.offset_at(nodes, 5), lambda f: f.sdf_grid(5)):
            with pytest.raises(AssertionError):
                query(random_field())
