"""The pause of garbage collection during imports."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from triplaneturbo.cli.garbage_collection import collection_paused


class _Cycle:
    """An object that only the collector can free."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_nothing_is_collected_in_the_pause_but_again_afterwards() -> None:
    with collection_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    cycle = weakref.ref(_Cycle())
    assert cycle() is not None
    gc.collect()
    assert cycle() is None


def test_objects_from_before_its_end_are_exempt() -> None:
    before = gc.get_freeze_count()
    with collection_paused():
        kept = [[] for _ in range(1000)]
    assert gc.get_freeze_count() > before + len(kept)


def test_an_inner_pause_does_not_end_the_outer_one() -> None:
    with collection_paused():
        with collection_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_failed_import_ends_the_pause() -> None:
    with pytest.raises(ImportError), collection_paused():
        raise ImportError
    assert gc.isenabled()
