"""Time limits that scale with the machine."""

from __future__ import annotations

import pytest

from tests.helpers import pace


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the next measurements give; the clock advances by an hour at each."""
    values: list[float] = []
    clock = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(pace, "_measured", (0.0, -float("inf")))
    monkeypatch.setattr(pace, "_measure", lambda: values.pop(0))
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
    return values


def test_limits_grow_with_the_slowest_measurement_and_never_shrink(measured: list[float]) -> None:
    measured += [0.2, 3.0, 1.5, 1000.0]
    assert [pace.patience(10) for _ in range(4)] == [10, 30, 30, 10 * pace.MOST]


def test_pace_is_measured_once_per_minute(measured: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 0, 59, 61, 61])  # read when asked, and after a measurement
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
    measured += [2.0, 4.0]
    assert [pace.slowness() for _ in range(3)] == [2, 2, 4]


def test_work_takes_time() -> None:
    assert 0 < pace._measure() < float("inf")


def test_until_ends_with_the_condition_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0, [], "come"])
    assert pace.until(lambda: next(values), every=0) == "come"
    monkeypatch.setattr(pace, "patience", lambda seconds: 0 * seconds)
    with pytest.raises(pytest.fail.Exception, match="last value: None"):
        pace.until(lambda: None, every=0)
