"""Durations in words."""

from __future__ import annotations

import pytest

from triplaneturbo.utils.durations import format_duration, format_estimate


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0423, "0.042 s"),
        (0.42, "0.42 s"),
        (4.23, "4.2 s"),
        (9.97, "10 s"),
        (42.3, "42 s"),
        (125, "2 min 05 s"),
    ],
)
def test_measured_durations_are_exact_from_a_minute(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.35, "0.35 s"),
        (35, "35 s"),
        (99.4, "99 s"),
        (99.6, "2 min"),
        (299, "5 min"),
        (3569, "59 min"),
        (3571, "1.0 h"),
        (8300, "2.3 h"),
        (86400, "24 h"),
        (2e5, "2 days"),
    ],
)
def test_estimates_have_two_significant_digits(seconds: float, said: str) -> None:
    assert format_estimate(seconds) == said
