"""Sessions of open pages."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from triplaneturbo.errors import UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.job_queue import Job, JobQueue
from triplaneturbo.serving.sessions import FRESH, GRACE, IDLE, KEPT_RESULTS, KEPT_SKETCHES, Session, Sessions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _with_file(session: Session, name: str = "cup") -> Path:
    session.folder.mkdir(parents=True, exist_ok=True)
    path = session.keep(name).with_suffix(".glb")
    path.write_bytes(b"mesh")
    return path


@pytest.fixture
def line() -> Iterator[JobQueue]:
    """A queue that does not contain these tests' jobs, which are only cancelled."""

    def work(requests: Sequence[Request], sketches: str) -> Generator[Any, None, None]:
        yield from ()

    line = JobQueue([work], "test")
    yield line
    line.close()


def test_session_folders_are_separate_and_secret(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    folders = {sessions.of(key).folder for key in ("one", "two", "../../etc", None, None)}
    assert len(folders) == 5
    assert all(folder.parent == tmp_path and len(folder.name) == 32 for folder in folders)
    assert sessions.of("one") is sessions.of("one")


def test_latest_request_wins(line: JobQueue) -> None:
    session = Session(Path("unused"))
    first, second = Job([Request("a cup")], line), Job([Request("a hat")], line)
    session.begin(first)
    session.begin(second)
    assert (first.cancelled, second.cancelled) == (True, False)
    session.cancel()
    assert second.cancelled


def test_old_results_are_deleted(tmp_path: Path) -> None:
    session = Session(tmp_path / "page")
    paths = [_with_file(session, f"cup-{number}") for number in range(KEPT_RESULTS)]
    _with_file(session, "cup-0")  # made again: it is now the newest
    _with_file(session, "cup-new")
    there = [path.exists() for path in paths]
    assert there == [True, False] + [True] * (KEPT_RESULTS - 2)


def test_earlier_request_never_wins(tmp_path: Path, line: JobQueue) -> None:
    session = Sessions(tmp_path).of("page")
    early, late = session.enter(), session.enter()
    first, second = Job([Request("a cup")], line), Job([Request("a hat")], line)
    assert session.begin(second, late)
    assert not session.begin(first, early)  # it came through the line of threads later
    assert (first.cancelled, second.cancelled) == (True, False)
    assert session.waits_for(second)
    session.forget(second)
    assert not session.waits_for(second)


def test_latest_sketches_are_kept(tmp_path: Path) -> None:
    session = Sessions(tmp_path).of("page")
    sketches = [session.sketch(b"a shape") for _ in range(KEPT_SKETCHES + 2)]
    assert [sketch.exists() for sketch in sketches] == [False] * 2 + [True] * KEPT_SKETCHES


def test_closed_session_is_kept_for_a_while(tmp_path: Path, line: JobQueue) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path, clock)
    path = _with_file(sessions.of("page"))
    job = Job([Request("a cup")], line)
    sessions.of("page").begin(job)
    sessions.leave("page")
    assert job.cancelled
    clock.now = GRACE - 1
    assert sessions.of("page").folder == path.parent
    clock.now = 2 * GRACE
    sessions.of("another")
    assert path.exists()  # it came back
    sessions.leave("page")
    clock.now = 3 * GRACE
    sessions.of("another")
    assert not path.parent.exists()


def test_abandoned_session_is_deleted(tmp_path: Path) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path, clock)
    nameless, idle = _with_file(sessions.of(None)), _with_file(sessions.of("idle"))
    clock.now = GRACE
    sessions.leave("never seen")
    assert (nameless.exists(), idle.exists()) == (False, True)
    clock.now = IDLE
    sessions.leave("never seen")
    assert not idle.exists()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _make(session: Session, name: str, size: int = 1000) -> Path:
    """Generate a file, as a request of the page does."""
    with session.busy():
        path = session.keep(name).with_suffix(".glb")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
    return path


def test_quota_covers_all_sessions_of_a_visitor(tmp_path: Path) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path, clock, quota=10_000)
    paths = []
    for number in range(50):
        paths.append(_make(sessions.of(f"page {number}"), "cup"))
        clock.now += FRESH / 4
        assert _size(tmp_path) <= 11_000  # and what was written last
    there = [path.exists() for path in paths]
    assert there == [False] * (50 - sum(there)) + [True] * sum(there)  # the oldest are gone
    assert sum(there) >= 10
    again = _make(sessions.of("page 0"), "cup")  # a page whose files went works on
    assert again.exists()


def test_quota_keeps_files_in_use_and_refuses_the_next_request(tmp_path: Path) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path, clock, quota=1500)
    with sessions.of("busy").busy():
        old = sessions.of("busy").keep("old").with_suffix(".glb")
        old.parent.mkdir()
        old.write_bytes(bytes(1000))
        clock.now += 10 * FRESH
        new = _make(sessions.of("new"), "cup")
        with pytest.raises(UserError, match="try again in a minute"):
            _make(sessions.of("third"), "cup")
        assert old.exists()
        assert new.exists()
        clock.now += FRESH
        assert _make(sessions.of("third"), "cup").exists()
        assert (old.exists(), new.exists()) == (True, False)
    clock.now += FRESH
    _make(sessions.of("fourth"), "cup")
    assert not old.exists()


def test_session_above_the_quota_is_cleared(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, Clock(), quota=1500)
    first = _make(sessions.of("page"), "cup", 2000)
    second = _make(sessions.of("page"), "hat")
    assert (first.exists(), second.exists()) == (False, True)


@pytest.mark.parametrize("heard", [True, False])
def test_idle_sessions_do_not_protect_files_from_the_quota(tmp_path: Path, heard: bool) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path, clock, quota=1500)
    old = _make(sessions.of("page"), "cup")
    clock.now += 2 * FRESH
    sessions.of("page", heard=heard)
    _make(sessions.of("other"), "cup")
    if heard:
        with pytest.raises(UserError, match="try again in a minute"):
            _make(sessions.of("third"), "cup")
    else:
        _make(sessions.of("third"), "cup")
    assert old.exists() == heard
