"""Several processes: the same gradients as one, one sentence when one fails, none left behind."""

from __future__ import annotations

import atexit
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.multiprocessing import ProcessRaisedException

from tests.helpers.pace import patience
from triplaneturbo.errors import UserError
from triplaneturbo.utils.distributed import (
    DistributedContext,
    WorkerLost,
    _exit_with_parent,
    is_launched,
    launched,
    run,
)

PARTS = 2


def learn(team: DistributedContext, parts: range) -> nn.Module:
    """A small model with the gradients of some parts of a batch, each part's loss a mean."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    batch = torch.randn(PARTS, 4, 3)
    sum(model(batch[part]).square().mean() for part in parts).backward()
    return model


def work(team: DistributedContext, folder: Path) -> None:
    model = learn(team, range(team.rank, team.rank + 1))
    team.average_gradients(model.parameters())
    mean = team.mean(torch.tensor(float(team.rank)))
    means = team.means({"rank": float(team.rank), "same": 0.1})
    told = [team.any(team.rank == 1), team.any(False)]
    given = torch.full((3,), float(team.rank) + 5)
    team.broadcast_from_main([given])
    (folder / f"here-{team.rank}").touch()
    team.wait()
    everyone = sorted(path.name for path in folder.glob("here-*"))
    learned = [p.grad for p in model.parameters()]
    torch.save(
        (learned, mean, everyone, team.is_main_process, means, told, given), folder / f"{team.rank}.pt"
    )
    team.wait()
    if team.rank == 1:
        raise UserError("The second one fails: mend it.")
    team.wait()  # for one that never comes


def test_two_processes_train_and_fail_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^The second one fails: mend it\.$"):
        run(work, (tmp_path,), PARTS)
    whole = learn(DistributedContext(), range(PARTS))
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(PARTS)]
    for rank, (gradients, mean, everyone, is_main_process, means, told, given) in enumerate(results):
        assert means == {"rank": 0.5, "same": 0.1}
        assert told == [True, False]
        assert given.tolist() == [5, 5, 5]
        assert mean == 0.5
        assert everyone == ["here-0", "here-1"]
        assert is_main_process == (rank == 0)
        for p, gradient, other in zip(whole.parameters(), gradients, results[0][0], strict=True):
            torch.testing.assert_close(gradient, p.grad / PARTS)
            assert torch.equal(gradient, other)


def die(team: DistributedContext) -> None:
    if team.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    team.wait()


def test_killed_process_is_reported() -> None:
    with pytest.raises(
        WorkerLost, match=r"^A process of the run has exited, .* resume from its last checkpoint\.$"
    ):
        run(die, (), PARTS)


def notice_first(team: DistributedContext) -> None:
    """Report the loss of the other process while that one is still running."""
    if team.rank == 0:
        raise WorkerLost
    time.sleep(60)


def test_killed_process_may_be_reported_by_another_first() -> None:
    with pytest.raises(WorkerLost):
        run(notice_first, (), PARTS)


def fail_and_exit_late(team: DistributedContext) -> None:
    """Raise in a process that is still exiting when the other one has noticed it."""
    if team.rank == 1:
        atexit.register(time.sleep, 5)
        raise ValueError("an error of this test")
    team.wait()


def test_error_is_reported_even_if_another_process_notices_it_first() -> None:
    with pytest.raises(ProcessRaisedException, match="ValueError: an error of this test"):
        run(fail_and_exit_late, (), PARTS)


@pytest.mark.parametrize("environ", [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"WORLD_SIZE": "4"}])
def test_process_without_launcher_is_single(environ: dict[str, str]) -> None:
    assert not is_launched(environ)
    with launched(environ) as team:
        assert team == DistributedContext()
        assert team.any(True)
        assert not team.any(False)
        assert team.means({"a": 0.1, "b": -3.0}) == {"a": 0.1, "b": -3.0}


def test_missing_processes_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that gives no address to meet at."""
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    environ = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="cannot connect to each other"), launched(environ):
        pass


def test_single_process_runs_in_place() -> None:
    told = []

    def here(team: DistributedContext, word: str) -> None:
        model = learn(team, range(1))
        before = [p.grad.clone() for p in model.parameters()]
        team.average_gradients(model.parameters())
        team.wait()
        assert all(torch.equal(p.grad, old) for p, old in zip(model.parameters(), before, strict=True))
        told.append((team, word, os.getpid(), team.mean(torch.tensor(3.0)).item()))

    run(here, ("word",), 1)
    assert told == [(DistributedContext(), "word", os.getpid(), 3.0)]
    assert DistributedContext().is_main_process
    assert DistributedContext().device == torch.device("cpu")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_process_ends_with_its_parent() -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        mine = os.getpid()
        if os.fork() == 0:
            os.close(read)
            os.write(write, b"x")
            _exit_with_parent(mine)
        time.sleep(0.2)
        os._exit(0)  # as if killed: its child is told nothing
    os.close(write)
    os.waitpid(parent, 0)
    assert os.read(read, 1) == b"x"
    started = time.monotonic()
    assert os.read(read, 1) == b""  # the pipe's end: nobody holds it any more
    os.close(read)
    assert time.monotonic() - started < patience(10)
