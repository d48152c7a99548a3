"""Distributed training equals training in one process, and runs survive killed processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from tests.helpers import workers
from tests.helpers.pace import patience, until
from tests.helpers.paths import ROOT
from tests.helpers.runs import learned, newest, same
from tests.helpers.workers import SETTINGS, forked

HALF = replace(SETTINGS, batch=1)


def weights(folder: Path) -> dict[str, Tensor]:
    """Return everything that a finished run has learned."""
    state = newest(folder)
    assert state["iteration"] == SETTINGS.iterations
    assert len(state["critics"]) == 1
    return learned(state)


def logs(folder: Path, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / f"log-{name}.jsonl").read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def two(folder: Path, *how: int) -> list:
    """Start two processes, each with half of the batch; `how` as for `workers.train`."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    return [forked(workers.member, rank, 2, port, folder, HALF, *how) for rank in range(2)]


def wait_for(path: Path) -> str:
    """Return the content of a file as soon as it has any."""
    until(lambda: path.exists() and path.read_text(), seconds=200)
    return path.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uninterrupted runs with one process and, in `two`, with two."""
    folder = tmp_path_factory.mktemp("whole")
    for process in [forked(workers.train, folder), *two(folder / "two")]:
        process.join()
        assert process.exitcode == 0
    return folder


def test_two_processes_match_one_with_twice_the_batch(whole: Path) -> None:
    one = logs(whole, "0-of-1")
    for rank in range(2):
        for alone, shared in zip(one, logs(whole / "two", f"{rank}-of-2"), strict=True):
            assert alone.keys() == shared.keys()
            # Where the gradient is zero, Adam turns rounding errors into full steps.
            exact = 1e-5 if alone["iteration"] == 0 else 2e-3
            assert shared == pytest.approx(alone, rel=exact)
    assert {"sd volume", "rgb surface"} <= {key for log in one for key in log}
    assert any("sd volume" not in log for log in one)
    before = torch.load(whole / "checkpoints" / "00000002.pt", weights_only=True)["weights"]
    actual, shared = weights(whole), weights(whole / "two")
    moved = sum(float((actual[name] - p).abs().sum()) for name, p in before.items())
    apart = sum(float((actual[name] - shared[name]).abs().sum()) for name in before)
    assert apart < 0.02 * moved


def test_killed_run_resumes_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    for write in (1, 2):
        process = forked(workers.die_writing, tmp_path, write)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert list((tmp_path / "checkpoints").glob(".*.part"))
    rng = Random(3)
    for _ in range(3):
        process = forked(workers.train, tmp_path)
        process.join(timeout=rng.uniform(0.2, 2.0))
        process.kill()
        process.join()
    last = forked(workers.train, tmp_path)
    last.join()
    assert last.exitcode == 0
    assert same(weights(tmp_path), weights(whole))
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_killed_process_stops_the_others_and_the_run_resumes(whole: Path, tmp_path: Path) -> None:
    members = two(tmp_path, 3)
    wait_for(tmp_path / "stuck")
    members[1].kill()
    members[0].join(timeout=patience(200))
    assert members[0].exitcode == 1
    assert "start the run again with the same command" in (tmp_path / "error-0").read_text()
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "00000002.pt"
    for process in two(tmp_path):
        process.join()
        assert process.exitcode == 0
    assert same(weights(tmp_path), weights(whole / "two"))


def test_non_finite_loss_stops_all_processes(tmp_path: Path) -> None:
    for process in two(tmp_path, -1, 12):  # an iteration takes two answers per rendering
        process.join()
        assert process.exitcode == 1
    messages = [(tmp_path / f"error-{rank}").read_text() for rank in range(2)]
    assert messages[0] == messages[1]
    assert "The rgb volume is not finite at iteration 4: " in messages[0]
    assert newest(tmp_path)["iteration"] == 2


def test_launcher_ends_with_a_killed_worker(tmp_path: Path) -> None:
    """Uses torch.distributed.run, which `accelerate launch` calls, because it starts faster.

    The tests above show that runs resume afterwards.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
    command += [str(free_port()), "-m", "tests.helpers.standing_worker", str(tmp_path)]
    launcher = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waiting, standing = (int(wait_for(tmp_path / f"pid-{rank}")) for rank in range(2))
    os.kill(standing, signal.SIGKILL)
    assert launcher.wait(timeout=patience(200)) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(waiting, 0)
    assert not (tmp_path / "passed").exists()
