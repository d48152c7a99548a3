"""Checkpoints: which stay, fallback for broken ones, and a full disk."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers import toy
from tests.helpers.runs import learned, newest, same, trainer
from triplaneturbo.distill.checkpoints import Checkpoints, smoothed_error
from triplaneturbo.errors import UserError
from triplaneturbo.utils.distributed import DistributedContext

RUN_SETTINGS = {"learning_rate": 0.1, "steps": 4}
SETTINGS = replace(toy.CHEAP, iterations=4)


def save(checkpoints: Checkpoints, losses: dict[int, float]) -> None:
    for iteration, loss in losses.items():
        checkpoints.save(iteration, {"weights": torch.full((3000,), float(iteration))}, loss)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_last_three_and_best_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, RUN_SETTINGS)
    assert checkpoints.newest() == (None, [])
    save(checkpoints, {0: 0.1, 10: 0.2})  # too young to be the best
    assert checkpoints.best is None
    assert checkpoints.iterations() == [0, 10]
    save(checkpoints, {20: 0.5, 30: 0.3, 40: 0.4, 50: 0.6, 60: 0.5, 70: 0.35})
    assert checkpoints.iterations() == [30, 50, 60, 70]
    assert checkpoints.best == (30, 0.3)
    again = Checkpoints(tmp_path, RUN_SETTINGS)
    state, notes = again.newest()
    assert state is not None
    assert (state["iteration"], notes, again.best) == (70, [], (30, 0.3))
    assert torch.equal(state["weights"], torch.full((3000,), 70.0))
    save(again, {80: 0.2})
    assert again.iterations() == [60, 70, 80]
    save(again, {90: 0.3, 100: 0.3, 110: 0.3})
    assert again.iterations() == [80, 90, 100, 110]


def test_run_with_renamed_settings_resumes(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path, {"rate": 0.1, "scored": 1, "begun": 0.5}), {10: 0.2})
    settings = {"learning_rate": 0.05, "scored_steps": 1, "schedule_offset": 0.5}
    assert Checkpoints(tmp_path, settings).newest()[0] is not None
    with pytest.raises(UserError, match="scored_steps"):
        Checkpoints(tmp_path, {**settings, "scored_steps": 2}).newest()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # amid the weights
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [cut, flip, empty])
def test_broken_checkpoint_falls_back_to_the_previous_one(tmp_path: Path, spoil) -> None:
    checkpoints = Checkpoints(tmp_path, RUN_SETTINGS)
    save(checkpoints, {10: 0.2, 20: 0.5, 30: 0.3})
    spoil(checkpoints.path(30))
    state, notes = Checkpoints(tmp_path, RUN_SETTINGS).newest()
    assert state is not None
    assert state["iteration"] == 20
    assert len(notes) == 1
    assert "00000030.pt is broken: the run resumes from the previous checkpoint" in notes[0]
    save(checkpoints, {25: 0.1})
    assert checkpoints.iterations() == [10, 20, 25]
    for path in checkpoints.folder.iterdir():
        spoil(path)
    with pytest.raises(UserError, match=r"All checkpoints in .* are broken: delete them"):
        checkpoints.newest()


def test_partial_checkpoints_are_deleted_after_a_complete_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, RUN_SETTINGS)
    save(checkpoints, {10: 0.2})
    left = checkpoints.folder / ".00000020.pt.abc.part"
    left.write_bytes(b"half")
    assert Checkpoints(tmp_path, RUN_SETTINGS).newest()[0] is not None
    assert left.exists()
    save(checkpoints, {20: 0.2})
    assert not left.exists()


def test_run_of_an_older_version_with_fewer_settings_resumes(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.step()
    run.save()
    path = max((tmp_path / "checkpoints").glob("*.pt"))
    state = newest(tmp_path)
    for key in ("train_offsets", "teachers.rgb.weighting"):
        assert key in state["settings"]
        del state["settings"][key]
    torch.save(state, path)
    assert trainer(tmp_path).iteration == 1
    state["settings"]["train_offsets"] = True
    torch.save(state, path)
    with pytest.raises(UserError, match="train_offsets"):
        trainer(tmp_path)


def test_state_of_an_older_version_is_refused_and_kept(tmp_path: Path) -> None:
    old = tmp_path / "train.pt"
    old.write_bytes(b"old")
    state, notes = Checkpoints(tmp_path, RUN_SETTINGS).newest()
    assert state is None
    assert len(notes) == 1
    assert "train.pt is from an older version" in notes[0]
    assert old.read_bytes() == b"old"


def test_smoothed_error_selects_the_scores() -> None:
    log = {"rgb volume": 0.3, "rgb surface": 0.5, "sd volume": 0.1, "eikonal": 9.0, "gradient": 200.0}
    assert smoothed_error(log, {"rgb", "sd"}) == pytest.approx(0.3)
    assert smoothed_error(log, {"rgb"}) == pytest.approx(0.4)
    assert smoothed_error({"eikonal": 1.0}, {"rgb"}) == float("inf")


def test_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trainer(tmp_path / "whole", SETTINGS, save_every=2)
    while not whole.finished:
        whole.step()
    running = trainer(tmp_path / "full", SETTINGS, save_every=2)
    for _ in range(3):
        running.step()
    before = {path: path.read_bytes() for path in (tmp_path / "full" / "checkpoints").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="free some space") as error:
            running.step()
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in (tmp_path / "full" / "checkpoints").iterdir()} == before
    other = trainer(tmp_path / "full", SETTINGS, save_every=2)  # resumes from the last one
    assert other.iteration == 2
    running.save()  # there is space again
    assert same(learned(newest(tmp_path / "full")), learned(newest(tmp_path / "whole")))
    while not other.finished:
        other.step()
    assert same(learned(newest(tmp_path / "full")), learned(newest(tmp_path / "whole")))


def test_full_disk_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="free some space"):
        trainer(tmp_path, SETTINGS)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_weights_of_an_interrupted_update_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = trainer(tmp_path, SETTINGS)
    running.step()

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running.optimizer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        running.step()
    running.save()
    assert newest(tmp_path)["iteration"] == 0


def test_processes_with_different_folders_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a shared folder, one process resumes from checkpoints that the others do not find."""
    monkeypatch.setattr(DistributedContext, "mean", lambda _team, value: value / 2)
    with pytest.raises(UserError, match=r"do not find the same checkpoints .* all machines share"):
        trainer(tmp_path, SETTINGS)
