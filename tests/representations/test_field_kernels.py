"""Compiled queries of triplane fields, compared with their twin in torch."""

from __future__ import annotations

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


def test_other_activations_are_evaluated_by_torch() -> None:
    field, points = random_field(mlp_activation="silu"), torch.rand(10, 3)
    with patch.object(field_kernels, "query", side_effect=AssertionError):
        assert torch.equal(field.offset(points), field.query_in_torch("offset", points))
        with pytest.raises(AssertionError):
            random_field().offset(points)
