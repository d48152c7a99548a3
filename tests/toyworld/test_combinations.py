"""The split into seen and held-out specs never changes by accident; sampling is balanced."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from triplaneturbo.toyworld.captions.combinations import (
    FINETUNE_SHARES,
    HELD_OUT,
    SHARES,
    BalancedSampler,
    all_specs,
    held_out,
    seen,
    write_held_out,
)
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.palette import NAMES
from triplaneturbo.toyworld.scene.spec import Spec


def test_combinations_are_complete_and_unique() -> None:
    specs = all_specs()
    assert len(set(specs)) == len(specs)
    counts = Counter(spec.kind for spec in specs)
    assert counts["plain"] == len(OBJECT_CLASSES) * 12
    assert counts["modifier"] == len(OBJECT_CLASSES) * 12 * 6
    assert counts["pair"] == 10 * 5 * (12 + 12 - 1)
    # Pairs of different colours, without the natural accent except where the main colour equals it.
    assert counts["two colours"] == sum(
        12 * 12 - 12 - 11 for thing in OBJECT_CLASSES.values() if thing.accent
    )


def test_held_out_list_is_unchanged(tmp_path: Path) -> None:
    write_held_out(tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_bytes() == HELD_OUT.read_bytes()
    lines = HELD_OUT.read_text().splitlines()
    assert lines == sorted(set(lines))
    assert len(held_out()) == len(lines)


def test_tenth_of_the_combinations_is_held_out() -> None:
    assert 0.09 < len(held_out()) / len(all_specs()) < 0.11
    assert set(seen()) | held_out() == set(all_specs())
    assert not set(seen()) & held_out()
    assert not {Spec.of(thing) for thing in OBJECT_CLASSES} & held_out()


@pytest.mark.parametrize(
    ("parts", "least"),
    [
        (("thing",), 0.8),
        (("color",), 0.8),
        (("modifier",), 0.8),
        (("support",), 0.8),
        (("thing", "color"), 0.5),
        (("thing", "modifier"), 0.5),
        (("thing", "accent"), 0.5),
        (("thing", "support"), 0.5),
    ],
)
def test_related_combinations_of_held_out_ones_are_seen(parts: tuple[str, ...], least: float) -> None:
    def kin(spec: Spec) -> tuple[str, ...]:
        return tuple(getattr(spec, part) for part in parts)

    known = Counter(map(kin, seen()))
    for group, count in Counter(map(kin, all_specs())).items():
        assert known[group] >= least * count, group


@pytest.mark.parametrize("shares", [SHARES, FINETUNE_SHARES])
def test_draws_are_balanced(shares: dict[str, float]) -> None:
    assert sum(shares.values()) == pytest.approx(1)
    rng = np.random.default_rng(0)
    sampler = BalancedSampler(seen(), shares)
    drawn = [sampler.draw(rng) for _ in range(40_000)]
    assert not set(drawn) & held_out()
    kinds = Counter(spec.kind for spec in drawn)
    for kind, share in shares.items():
        assert kinds[kind] / len(drawn) == pytest.approx(share, abs=0.015)
    plain = Counter(spec.thing for spec in drawn if spec.kind == "plain")
    even = kinds["plain"] / len(OBJECT_CLASSES)
    assert set(plain) == set(OBJECT_CLASSES)
    assert all(0.7 * even < count < 1.3 * even for count in plain.values())
    assert set(NAMES) == {spec.color for spec in drawn if spec.kind == "modifier"}
    again = np.random.default_rng(0)
    assert [sampler.draw(again) for _ in range(100)] == drawn[:100]


def test_missing_kinds_leave_their_share_to_others() -> None:
    specs = [Spec.of("duck"), Spec.of("duck", support="box")]
    rng = np.random.default_rng(0)
    sampler = BalancedSampler(specs)
    drawn = Counter(sampler.draw(rng) for _ in range(4000))
    assert set(drawn) == set(specs)
    assert drawn[specs[0]] / 4000 == pytest.approx(0.7, abs=0.03)
    with pytest.raises(ValueError, match="specs is empty"):
        BalancedSampler([])
