"""Several processes learn what one does, and no run is lost with a process, whenever that is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from tests.distill import workers
from tests.distill.workers import SETTINGS, forked

ROOT = Path(__file__).parents[2]
HALF = replace(SETTINGS, batch=1)


def weights(folder: Path) -> dict[str, Tensor]:
    """All that is learned in the newest checkpoint of a finished run."""
    state = torch.load(max((folder / "checkpoints").glob("*.pt")), weights_only=True)
    assert state["iteration"] == SETTINGS.iterations
    critics = {f"critic {i}": value for i, value in enumerate(state["critics"]["sd"]["weights"])}
    return {**state["weights"], **{f"average {name}": p for name, p in state["average"].items()}, **critics}


def logs(folder: Path, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / f"log-{name}.jsonl").read_text().splitlines()]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def two(folder: Path, stuck: int = -1) -> list:
    """Two started processes, each with half of the batch."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    return [forked(workers.member, rank, 2, port, folder, HALF, stuck) for rank in range(2)]


def wait_for(what: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uninterrupted runs: by one process, and by two in `two`."""
    folder = tmp_path_factory.mktemp("whole")
    for process in [forked(workers.train, folder), *two(folder / "two")]:
        process.join()
        assert process.exitcode == 0
    return folder


def test_two_processes_learn_what_one_learns_with_twice_the_batch(whole: Path) -> None:
    one = logs(whole, "0-of-1")
    for rank in range(2):
        for alone, shared in zip(one, logs(whole / "two", f"{rank}-of-2"), strict=True):
            assert alone.keys() == shared.keys()
            # Adam makes a step of what is no more than rounding where there is no gradient.
            exact = 1e-5 if alone["iteration"] == 0 else 2e-3
            assert shared == pytest.approx(alone, rel=exact)
    assert {"sd volume", "rgb surface"} <= {key for log in one for key in log}
    assert any("sd volume" not in log for log in one)
    before = torch.load(whole / "checkpoints" / "00000002.pt", weights_only=True)["weights"]
    found, shared = weights(whole), weights(whole / "two")
    moved = sum(float((found[name] - p).abs().sum()) for name, p in before.items())
    apart = sum(float((found[name] - shared[name]).abs().sum()) for name in before)
    assert apart < 0.02 * moved


def test_a_run_killed_at_any_moment_is_gone_on_with_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    for write in (1, 2):
        process = forked(workers.die_writing, tmp_path, write)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert list((tmp_path / "checkpoints").glob(".*.part"))
    chance = Random(3)
    for _ in range(3):
        process = forked(workers.train, tmp_path)
        process.join(timeout=chance.uniform(0.2, 2.0))
        process.kill()
        process.join()
    workers_last = forked(workers.train, tmp_path)
    workers_last.join()
    assert workers_last.exitcode == 0
    assert same(weights(tmp_path), weights(whole))
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_where_one_is_killed_the_others_end_and_the_run_goes_on(whole: Path, tmp_path: Path) -> None:
    members = two(tmp_path, stuck=3)
    wait_for((tmp_path / "stuck").exists, 60)
    members[1].kill()
    members[0].join(timeout=20)
    assert members[0].exitcode == 1
    assert "start it again the same way" in (tmp_path / "told-0").read_text()
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "00000002.pt"
    for process in two(tmp_path):
        process.join()
        assert process.exitcode == 0
    assert same(weights(tmp_path), weights(whole / "two"))


def test_a_launcher_ends_with_the_worker_that_is_killed(whole: Path, tmp_path: Path) -> None:
    """torch.distributed.run is what `accelerate launch` calls, and starts sooner."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
    command += [str(free_port()), "-m", "tests.distill.workers", str(tmp_path), "3"]
    launcher = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "stuck").exists() and (tmp_path / "stuck").read_text() != "", 120)
    os.kill(int((tmp_path / "stuck").read_text()), signal.SIGKILL)
    assert launcher.wait(timeout=30) != 0
    for process in two(tmp_path):
        process.join()
    assert same(weights(tmp_path), weights(whole / "two"))
