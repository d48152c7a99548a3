"""Details of the ground truth and their recall in results; errors of normals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.details import detail_recall, find_details, normal_error
from triplaneturbo.toyworld.scoring.generated import Generated, sphere
from triplaneturbo.toyworld.scoring.score import compare, summary

RED, WHITE, GREEN = (0.8, 0.1, 0.1), (0.9, 0.9, 0.9), (0.1, 0.6, 0.1)


def _disc(size: int, row: int, column: int, radius: float) -> np.ndarray:
    at = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1)
    return np.linalg.norm(at - (row, column), axis=-1) <= radius


def _picture(spots: list[tuple[int, int, float]], color: tuple[float, ...] = WHITE) -> tuple:
    """Return a red disc with spots: mask [1, 96, 96] and colours [1, 96, 96, 3]."""
    mask = _disc(96, 48, 48, 40)
    rgb = np.where(mask[..., None], np.float32(RED), np.float32(0))
    for spot in spots:
        rgb[_disc(96, *spot) & mask] = color
    return mask[None], rgb[None]


def test_details_are_small_patches_inside_the_object() -> None:
    mask, rgb = _picture([(40, 40, 3), (60, 55, 2), (48, 87, 4), (70, 40, 1), (30, 60, 12)])
    found = list(find_details(mask, rgb))
    # Not: a spot that the outline cuts, one of 5 pixels, a large one.
    assert sorted(detail.patch.sum() for detail in found) == [
        _disc(96, 60, 55, 2).sum(),
        _disc(96, 40, 40, 3).sum(),
    ]
    for detail in found:
        assert np.allclose(detail.color, WHITE)
        assert np.allclose(detail.around, RED)


@pytest.mark.parametrize(
    ("spots", "color", "recalled"),
    [
        ([(40, 40, 3), (60, 55, 3)], WHITE, 2),
        ([(40, 40, 3)], WHITE, 1),
        ([], WHITE, 0),
        ([(43, 38, 3), (60, 55, 3)], WHITE, 2),  # displaced by four pixels
        ([(40, 50, 3), (70, 55, 3)], WHITE, 0),  # by ten
        ([(40, 40, 3), (60, 55, 3)], GREEN, 0),  # of another colour
        ([(50, 48, 25)], WHITE, 0),  # a smear over both
    ],
)
def test_recall_needs_position_and_colour(
    spots: list[tuple[int, int, float]], color: tuple[float, ...], recalled: int
) -> None:
    truth = _picture([(40, 40, 3), (60, 55, 3)])
    assert detail_recall(*_picture(spots, color), *truth) == (recalled, 2)


def test_recall_of_an_empty_picture_is_zero() -> None:
    truth = _picture([(40, 40, 3)])
    nothing = np.zeros_like(truth[0]), np.zeros_like(truth[1])
    assert detail_recall(*nothing, *truth) == (0, 1)


def test_normal_error_is_the_mean_angle() -> None:
    normal = np.float32([[[[0, 0, 2], [0, 1, 0], [1, 0, 0]]]])
    true = np.float32([[[[0, 0, 1], [0, 0, 1], [0, 0, 1]]]])
    both = np.array([[[True, True, False]]])
    assert normal_error(normal, true, both) == pytest.approx(45)
    assert normal_error(normal, true, ~both) == pytest.approx(90)
    assert normal_error(normal, true, np.zeros_like(both)) is None


def test_the_truth_has_all_details_and_a_plain_copy_has_none() -> None:
    spec = Spec.of("cat", "orange")
    instances = ground_truth.occupancy(spec)
    perfect = ground_truth.generated(spec, 2)
    right, _ = compare(perfect, spec, instances)
    assert right["details"] >= 4
    assert right["details_found"] == right["details"]
    assert right["normal_error"] < 3
    plain = Generated(perfect.mesh, perfect.raw, lambda points: torch.full_like(points, 0.5))
    wrong, _ = compare(plain, spec, instances)
    assert (wrong["details"], wrong["details_found"]) == (right["details"], 0)
    ball, _ = compare(sphere(), spec, instances)
    assert ball["normal_error"] > 10
    empty, _ = compare(None, spec, instances)
    assert (empty["details_found"], empty["normal_error"]) == (0, None)
    assert summary([right, wrong])["detail_recall"] == 0.5
    assert summary([{**right, "details": 0, "details_found": 0}])["detail_recall"] is None
