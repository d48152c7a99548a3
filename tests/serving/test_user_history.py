"""History on disk: ownership, restarts, and deletion when the quota is exhausted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.busy_history import OTHER, TOKEN, busy
from tests.helpers.pace import patience
from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import ROOT
from triplaneturbo.request import Request
from triplaneturbo.serving.result_store import FRESH, PINNED, RESULT
from triplaneturbo.serving.user_history import NOT_LINKED, History, HistoryEntry, UserHistory

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
REQUEST = Request(
    "A <b>red</b> mushroom / ../..", seed=7, steps=2, faces=None, unwrap="none", normal_map=False
)


class Clock:
    now = 1_790_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf(tmp_path: Path, clock: Clock) -> UserHistory:
    return History(tmp_path / "history", clock).of(TOKEN)


def _add(shelf: UserHistory, prompt: str = "a cup", size: int = 0, **more: Any) -> HistoryEntry:
    entry = shelf.add(Request(prompt), {"faces": 12}, model="small", **more)
    return shelf.attach(entry.id, "glb", bytes(size)) if size else entry


def _prompts(shelf: UserHistory) -> list[str]:
    return [entry.prompt for entry in shelf.entries()]


def test_results_survive_a_restart(shelf: UserHistory, tmp_path: Path, clock: Clock) -> None:
    entry = shelf.add(REQUEST, {"faces": 12, "seconds": {"total": 0.5}}, model="small", thumbnail=PNG)
    shelf.attach(entry.id, "glb", b"glTF", {"seconds": {"total": 0.7}})
    shelf.pin(entry.id, True)
    (again,) = History(tmp_path / "history", clock).of(TOKEN).entries()
    assert again.request() == REQUEST
    assert (again.prompt, again.seed, again.model, again.adapter) == (REQUEST.prompt, 7, "small", "")
    assert again.facts == {"faces": 12, "seconds": {"total": 0.7}}
    assert again.made == pytest.approx(clock.now, abs=0.1)
    assert again.pinned
    assert again.files["glb"].read_bytes() == b"glTF"
    assert list(again.files) == ["glb"]
    assert again.thumbnail is not None
    assert again.thumbnail.read_bytes() == PNG
    assert again.id == entry.id == again.folder.name


def test_newest_result_is_first(shelf: UserHistory) -> None:
    for prompt in ("first", "second", "third"):
        _add(shelf, prompt)
    assert _prompts(shelf) == ["third", "second", "first"]


def test_visitors_have_separate_histories(shelf: UserHistory, tmp_path: Path) -> None:
    entry = _add(shelf)
    other = History(tmp_path / "history").of(OTHER)
    assert other.entries() == []
    for act in (other.get, other.delete, lambda id: other.pin(id, True)):
        with pytest.raises(UserError, match="This result no longer exists"):
            act(entry.id)
    with pytest.raises(UserError, match="no longer exists"):
        other.attach(entry.id, "glb", b"mine")
    assert shelf.get(entry.id) == entry


def test_names_are_secret(tmp_path: Path) -> None:
    history = History(tmp_path, Clock())
    entries = [_add(history.of(TOKEN)) for _ in range(50)]
    assert {len(entry.id) for entry in entries} == {32}
    assert len({entry.id[12:] for entry in entries}) == 50
    assert not any(TOKEN in path for path in map(str, tmp_path.rglob("*")))


@pytest.mark.parametrize(
    "token", [None, "", "short", "../" * 12, "a" * 31, "a" * 129, "é" * 40, "a" * 40 + "\n", 5, ["a" * 40]]
)
def test_invalid_token_is_refused(tmp_path: Path, token: Any) -> None:
    with pytest.raises(UserError, match="reload the page"):
        History(tmp_path).of(token)
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


@pytest.mark.parametrize("id", ["", "..", "../" + "0" * 29, "0" * 32, "0" * 33, None, 7, "0" * 31 + "\n"])
def test_invalid_result_is_refused(shelf: UserHistory, id: Any) -> None:
    _add(shelf)
    for act in (shelf.get, shelf.delete, lambda id: shelf.attach(id, "glb", b"x")):
        with pytest.raises(UserError, match="This result no longer exists; generate it again"):
            act(id)
    assert len(shelf.entries()) == 1


def test_results_of_another_version_are_restored(shelf: UserHistory) -> None:
    entry = shelf.add(REQUEST, {}, model="small")
    path = entry.folder / RESULT
    result = json.loads(path.read_text())
    del result["settings"]["unwrap"]
    result["settings"] |= {"sparkle": 3, "steps": 9}
    result["more"] = "of a later version"
    path.write_text(json.dumps(result))
    (again,) = shelf.entries()
    assert again.request() == Request(REQUEST.prompt, seed=7, steps=9, faces=None, normal_map=False)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"schema": "triplaneturbo.res',
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema": "another.program", "version": 1}',
        b'{"schema": "triplaneturbo.result", "version": 2, "prompt": "of the future"}',
        b'{"schema": "triplaneturbo.result", "version": 1}',
    ],
)
def test_unreadable_results_are_skipped_and_kept(shelf: UserHistory, clock: Clock, damage: bytes) -> None:
    broken, fine = _add(shelf, "broken"), _add(shelf, "fine")
    (broken.folder / RESULT).write_bytes(damage)
    assert _prompts(shelf) == ["fine"]
    with pytest.raises(UserError, match="no longer exists"):
        shelf.get(broken.id)
    clock.now += FRESH
    _quota(shelf, len(damage) + (fine.folder / RESULT).stat().st_size + 50)
    _add(shelf, "one more")
    assert _prompts(shelf) == ["one more"]
    assert not fine.folder.exists()  # what is ours goes, though it is the younger one
    if damage != b'{"schema": "triplaneturbo.result", "version": 1}':
        assert (broken.folder / RESULT).read_bytes() == damage


@pytest.mark.parametrize(
    ("key", "value"), [("name", "../x"), ("prompt", 3), ("settings", []), ("facts", None), ("made", "now")]
)
def test_results_with_invalid_fields_are_skipped(shelf: UserHistory, key: str, value: Any) -> None:
    entry = _add(shelf)
    path = entry.folder / RESULT
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert shelf.entries() == []


def test_incomplete_results_are_skipped(shelf: UserHistory, clock: Clock) -> None:
    half, strange = _add(shelf, "half", thumbnail=PNG), _add(shelf, "strange")
    size = (strange.folder / RESULT).stat().st_size
    for entry in (half, strange):
        (entry.folder / RESULT).unlink()
    (strange.folder / "diary.txt").write_text("nobody's business")
    assert shelf.entries() == []
    clock.now += FRESH
    _quota(shelf, size + 50)
    _add(shelf, "new")
    assert not half.folder.exists()  # what a killed server left
    assert (strange.folder / "diary.txt").exists()


def test_failed_writes_leave_nothing(shelf: UserHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise UserError("Cannot write: no space left on device.")

    monkeypatch.setattr("triplaneturbo.serving.user_history.write_atomically", full)
    with pytest.raises(UserError, match="no space"):
        _add(shelf, thumbnail=PNG)
    assert not shelf.folder.exists()


def test_uncreatable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="choose another --outputs"):
        History(tmp_path / "file" / "history")


def test_deleting_a_result(shelf: UserHistory) -> None:
    entry, other = _add(shelf, "one", size=10), _add(shelf, "two")
    shelf.pin(entry.id, True)
    shelf.delete(entry.id)
    assert _prompts(shelf) == ["two"]
    assert not entry.folder.exists()
    with pytest.raises(UserError, match="no longer exists"), entry.in_use():
        pass
    shelf.delete(other.id)
    assert not shelf.folder.exists()
    assert {path.name for path in shelf.folder.parent.iterdir()} <= {".lock"}


def test_files_are_attached_atomically(shelf: UserHistory, tmp_path: Path) -> None:
    entry = _add(shelf)
    source = tmp_path / "live.zip"
    source.write_bytes(b"PK")
    entry = shelf.attach(entry.id, "obj", source)
    entry = shelf.attach(entry.id, "obj", source)  # once more
    assert entry.files["obj"].suffix == ".zip"
    source.unlink()
    assert entry.files["obj"].read_bytes() == b"PK"
    assert sorted(path.name for path in entry.folder.iterdir()) == sorted([RESULT, entry.files["obj"].name])
    with pytest.raises(FileNotFoundError):
        shelf.attach(entry.id, "glb", tmp_path / "nowhere.glb")
    assert list(shelf.get(entry.id).files) == ["obj"]


def test_thumbnail_is_an_image(shelf: UserHistory) -> None:
    with pytest.raises(ValueError, match="a PNG"):
        _add(shelf, thumbnail=b"<svg onload=alert(1)>")
    assert shelf.entries() == []


def test_zip_has_all_results(shelf: UserHistory, tmp_path: Path) -> None:
    first = shelf.add(REQUEST, {}, model="small", thumbnail=PNG)
    shelf.attach(first.id, "glb", b"one")
    for data in (b"two", b"three"):  # the same request twice
        shelf.attach(shelf.add(REQUEST, {}, model="small").id, "glb", data)
    path = shelf.zip(tmp_path / "new" / "history.zip")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
        assert {archive.read(name) for name in names if name.endswith(".glb")} == {b"one", b"two", b"three"}
    assert len(set(names)) == len(names) == 5
    assert all(not name.startswith("/") and ".." not in name and "<" not in name for name in names)
    assert [set(item["files"]) <= set(names) for item in manifest] == [True] * 3
    assert manifest[0]["prompt"] == REQUEST.prompt
    assert manifest[0]["settings"]["unwrap"] == "none"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="No results yet"):
        History(tmp_path / "history").of(OTHER).zip(tmp_path / "other.zip")
    assert not (tmp_path / "other.zip").exists()


def test_zip_skips_results_deleted_meanwhile(
    shelf: UserHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = _add(shelf, "kept", size=10), _add(shelf, "gone", size=10)
    monkeypatch.setattr(shelf, "entries", lambda: [kept, gone])
    shelf.delete(gone.id)
    with zipfile.ZipFile(shelf.zip(tmp_path / "all.zip")) as archive:
        assert [item["prompt"] for item in json.loads(archive.read("manifest.json"))] == ["kept"]


def _quota(shelf: UserHistory, quota: int) -> None:
    shelf._store.quota = quota


def test_quota_deletes_the_oldest_results_of_all_visitors(tmp_path: Path, clock: Clock) -> None:
    history = History(tmp_path, clock, quota=50_000)
    mine, yours = history.of(TOKEN), history.of(OTHER)
    old = [
        _add(shelf, prompt, 10_000)
        for shelf, prompt in ((yours, "1"), (mine, "2"), (yours, "3"), (mine, "4"))
    ]
    clock.now += FRESH
    _add(mine, "new", 15_000)
    assert [entry.folder.exists() for entry in old] == [False, True, True, True]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 50_000
    assert (_prompts(mine), _prompts(yours)) == (["new", "4", "2"], ["3"])


def test_quota_keeps_results_that_are_pinned_in_use_or_new(tmp_path: Path, clock: Clock) -> None:
    history = History(tmp_path, clock, quota=50_000)
    shelf = history.of(TOKEN)
    pinned, used = _add(shelf, "pinned", 20_000), _add(shelf, "used", 15_000)
    shelf.pin(pinned.id, True)
    clock.now += FRESH
    fresh = _add(shelf, "fresh", 10_000)
    with used.in_use():
        with pytest.raises(UserError, match="The disk quota of 5e-05 GB is exhausted") as info:
            _add(history.of(OTHER), "more", 10_000)
        assert "\n" not in str(info.value)
        assert all(entry.folder.exists() for entry in (pinned, used, fresh))
    _add(history.of(OTHER), "more", 10_000)
    assert [entry.folder.exists() for entry in (pinned, used, fresh)] == [True, False, True]


def test_quota_deletes_nothing_if_insufficient(tmp_path: Path, clock: Clock) -> None:
    shelf = History(tmp_path, clock, quota=50_000).of(TOKEN)
    old = _add(shelf, "old", 10_000)
    clock.now += FRESH
    entry = _add(shelf, "new")
    with pytest.raises(UserError, match="quota"):
        shelf.attach(entry.id, "glb", bytes(60_000))
    assert old.folder.exists()
    assert shelf.get(entry.id).files == {}


def test_quota_keeps_the_result_of_the_file(tmp_path: Path, clock: Clock) -> None:
    shelf = History(tmp_path, clock, quota=50_000).of(TOKEN)
    entry, other = _add(shelf, "one", 10_000), _add(shelf, "two", 20_000)
    clock.now += FRESH
    assert set(shelf.attach(entry.id, "ply", bytes(25_000)).files) == {"glb", "ply"}
    assert not other.folder.exists()


def test_use_by_another_process_counts_until_it_ends(tmp_path: Path, clock: Clock) -> None:
    shelf = History(tmp_path, clock, quota=50_000).of(TOKEN)
    entry = _add(shelf, "used", 40_000)
    clock.now += FRESH
    code = (
        "import sys; from pathlib import Path; from triplaneturbo.serving.user_history import History;"
        f"entry = History(Path({str(tmp_path)!r})).of({TOKEN!r}).get({entry.id!r});"
        "use = entry.in_use(); use.__enter__(); print('held', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="quota"):
            _add(shelf, "new", 30_000)
        other.kill()
    _add(shelf, "new", 30_000)
    assert not entry.folder.exists()


def test_visitor_limit_keeps_pinned_results(tmp_path: Path, clock: Clock) -> None:
    history = History(tmp_path, clock, kept=3)
    shelf = history.of(TOKEN)
    first = _add(shelf, "first")
    shelf.pin(first.id, True)
    _add(history.of(OTHER), "another's")
    for number in range(5):
        _add(shelf, str(number))
    assert _prompts(shelf) == ["4", "3", "first"]
    assert _prompts(history.of(OTHER)) == ["another's"]
    for entry in shelf.entries():
        shelf.pin(entry.id, True)
    with pytest.raises(UserError, match="All 3 results are pinned or in use; unpin or delete some"):
        _add(shelf, "one more")
    shelf.pin(first.id, False)
    _add(shelf, "one more")
    assert _prompts(shelf) == ["one more", "4", "3"]


def test_unpinning_an_unpinned_result(shelf: UserHistory) -> None:
    entry = _add(shelf)
    assert not shelf.pin(entry.id, False).pinned
    assert shelf.pin(entry.id, True).pinned
    assert (entry.folder / PINNED).exists()


def test_concurrent_use_of_one_root(tmp_path: Path) -> None:
    """Each process adds, attaches, pins and deletes in its own history and in a common one."""
    code = (
        "import sys; sys.path.insert(0, '.'); from tests.helpers.busy_history import busy;"
        f"from pathlib import Path; busy(Path({str(tmp_path)!r}), sys.argv[1])"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", code, name], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for name in ("p", "q")
    ]
    wrong: list[BaseException] = []

    def here(name: str) -> None:
        try:
            busy(tmp_path, name)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=here, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        assert other.wait(patience(60)) == 0, other.communicate()[1]
    assert not wrong
    history = History(tmp_path)
    for name in ("p", "q", "a", "b", "c"):
        entries = history.of(name * 43).entries()
        assert [entry.prompt for entry in entries] == [f"{name} {n}" for n in range(10, -1, -2)]
        assert all(entry.files["glb"].read_bytes() == entry.prompt.encode() * 100 for entry in entries)
    common = history.of(OTHER).entries()
    assert len(common) == 30
    assert all(entry.pinned == (entry.seed % 2 == 0) for entry in common)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert not [name for name in left if name.startswith((".lease", ".part")) or name.endswith(".part")]


def test_interrupted_deletions_finish_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / ".gone-0123").mkdir()
    (tmp_path / ".gone-0123" / "mesh.glb").write_bytes(b"half")
    (tmp_path / "notes").mkdir()
    History(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["notes"]


def test_links_are_not_results(shelf: UserHistory, tmp_path: Path) -> None:
    entry = _add(shelf)
    other = History(tmp_path / "history").of(OTHER)
    other.folder.mkdir()
    os.symlink(entry.folder, other.folder / ("f" * 32))
    assert other.entries() == []


def test_a_link_opens_a_result_of_its_owner_only(shelf: UserHistory, tmp_path: Path) -> None:
    old, entry = _add(shelf, "a red mushroom"), _add(shelf)
    assert shelf.linked(entry.link).id == entry.id
    assert shelf.linked(old.link).id == old.id
    assert entry.link[:12] != entry.id[:12]  # which is the time
    assert entry.link == History(tmp_path / "history").of(TOKEN).linked(entry.link).link

    stranger = History(tmp_path / "history").of(OTHER)
    _add(stranger)
    shelf.delete(old.id)
    (entry.folder / RESULT).write_bytes(b"broken")
    hostile = ["", "0" * 32, old.id, "../" * 12, "x" * 100_000, "\0", None, 7, ["a"], {"path": "/etc/passwd"}]
    for results, key in [(stranger, entry.link), (shelf, old.link), (shelf, entry.link)] + [
        (shelf, key) for key in hostile
    ]:
        with pytest.raises(UserError, match="only in the browser that made it") as refused:
            results.linked(key)
        assert str(refused.value) == NOT_LINKED  # the same for whatever reason
