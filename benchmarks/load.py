"""Many clients at once against the page on the small model: python -m benchmarks.load [--clients 50]

Each client asks for one mesh after the other and, where it is told that the queue is full, comes again when
it was told to. Wrong is: any other error; a result of another prompt or seed than was asked for; a file that
is not the one told of; two files for one request; a file that a fresh engine, with nothing else to do, makes
otherwise. The server's memory is printed as it goes. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from gradio_client import Client
from gradio_client.exceptions import AppError

from benchmarks.picture import PROMPTS
from triplaneturbo.models.catalog import ROOT
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine

FULL = re.compile(r"The queue is full; try again in (\d+) s\.")
SEEDS = 25  # with the prompts 400 requests: some are asked for twice, most only once
ROW = 10  # seconds between the rows of the table
WARM_UP = 0.25  # of the time, in which memory may grow


@dataclass
class Tally:
    """What came of all requests; `lock` guards it.

    Attributes:
        made: the sha256 of each request's GLB, with the settings and the name that the server told of.
        seconds: of each result, from the first time that it was asked for, refusals included.
        refused: how often the queue was full.
        told: seconds after which refused clients were told to come again.
        wrong: what went wrong, and how often.
        lasted: seconds until the last client had its last result.
    """

    made: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    told: list[int] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    lasted: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> int:
    """Measure and print; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="Load the page.")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--queue", type=int, default=16, help="requests that may wait at the server")
    parser.add_argument("--sample", type=int, default=12, help="results made again by a fresh engine")
    arguments = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        with _server(Path(folder), arguments.queue) as (url, process):
            memory = _load(url, process, arguments.clients, arguments.seconds, Path(folder), tally)
        log = (Path(folder) / "log").read_text(encoding="utf-8")
        if process.returncode or "Traceback" in log:
            tally.wrong[f"the server ended with {process.returncode} and said: {log[-3000:]}"] += 1
    if tally.made:
        same = _alone(tally, arguments.sample)
        _report(tally, memory, same)
    for what, often in tally.wrong.most_common():
        print(f"{often:6} x {what}")
    return 1 if tally.wrong else 0


@contextmanager
def _server(folder: Path, queue: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A freshly started app.py: its address and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--model", "small", "--device", "cpu", "--port", str(port)]
    # The rate limit is for people, not for a benchmark.
    command += ["--outputs", str(folder / "history"), "--queue", str(queue), "--per-minute", "1000000"]
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment) as server,
    ):
        try:
            while b"Open " not in (folder / "log").read_bytes():
                if server.poll() is not None:
                    raise SystemExit((folder / "log").read_text(encoding="utf-8"))
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/", server
        finally:
            server.terminate()


def _load(
    url: str, process: subprocess.Popen[bytes], clients: int, seconds: float, folder: Path, tally: Tally
) -> list[tuple[float, float]]:
    """Let the clients ask for so long; the server's memory in MB at each second."""
    begun = threading.Barrier(clients + 1, timeout=120)
    until = [0.0]
    threads = [
        threading.Thread(target=_client, args=(url, number, begun, until, folder / str(number), tally))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    begun.wait()
    since = time.monotonic()
    until[0] = since + seconds
    begun.wait()
    print(f"{'s':>5} {'RSS in MB':>10} {'results':>8} {'refused':>8} {'wrong':>6}")
    memory = []
    server = psutil.Process(process.pid)
    while (now := time.monotonic() - since) < seconds and process.poll() is None:
        memory.append((now, server.memory_info().rss / 1e6))
        if len(memory) % ROW == 1:
            with tally.lock:
                done, refused, wrong = len(tally.seconds), tally.refused, sum(tally.wrong.values())
            print(f"{now:5.0f} {memory[-1][1]:10.0f} {done:8} {refused:8} {wrong:6}", flush=True)
        time.sleep(1)
    if process.poll() is not None:
        until[0] = 0.0
        tally.wrong["the server ended before its time"] += 1
    for thread in threads:
        thread.join()
    tally.lasted = time.monotonic() - since
    return memory


def _client(
    url: str, number: int, begun: threading.Barrier, until: list[float], folder: Path, tally: Tally
) -> None:
    """One client: asks until the time is over."""
    draw = random.Random(number)
    client = Client(url, verbose=False, download_files=str(folder), analytics_enabled=False)
    begun.wait()
    begun.wait()
    while time.monotonic() < until[0]:
        _ask(client, draw.choice(PROMPTS), draw.randrange(SEEDS), until[0], tally)
    client.close()


def _ask(client: Client, prompt: str, seed: int, until: float, tally: Tally) -> None:
    """Ask for one mesh, as often as the queue is full, and look at what comes."""
    since = time.monotonic()
    while time.monotonic() < until:
        try:
            path, facts = client.predict(prompt, seed=seed, api_name="/generate")
        except AppError as error:
            full = FULL.fullmatch(str(error))
            with tally.lock:
                if full is None:
                    tally.wrong[str(error)] += 1
                    return
                tally.refused += 1
                tally.told.append(int(full[1]))
            time.sleep(max(0.0, min(int(full[1]), until - time.monotonic())))
            continue
        except Exception as error:
            with tally.lock:
                tally.wrong[f"{type(error).__name__}: {error}"] += 1
            return
        data = Path(path).read_bytes()
        Path(path).unlink()
        with tally.lock:
            tally.seconds.append(time.monotonic() - since)
            _look(tally, prompt, seed, facts, hashlib.sha256(data).hexdigest())
        return


def _look(tally: Tally, prompt: str, seed: int, facts: dict[str, Any], digest: str) -> None:
    """Is it what was asked for, and the same as the last time?"""
    if (facts["prompt"], facts["seed"]) != (prompt, seed):
        tally.wrong["a result of another prompt or seed"] += 1
    glb = facts["files"][0]
    if glb["sha256"] != digest:
        tally.wrong["another file than the facts tell of"] += 1
    kept = tally.made.setdefault((prompt, seed), {"sha256": digest, "name": glb["name"], **facts["settings"]})
    if kept["sha256"] != digest:
        tally.wrong["two files for one request"] += 1


def _alone(tally: Tally, count: int) -> int:
    """Make some of them again, one after the other; how many are the same, byte for byte."""
    chosen = random.Random(0).sample(sorted(tally.made), min(count, len(tally.made)))
    same = 0
    with Engine("small", device="cpu") as engine:
        for prompt, seed in chosen:
            settings = dict(tally.made[prompt, seed])
            digest, name = settings.pop("sha256"), Path(settings.pop("name")).stem
            mesh = engine.submit(Request(prompt, seed=seed, **settings)).result().mesh
            if hashlib.sha256(engine.encode(mesh, "glb", name)).hexdigest() == digest:
                same += 1
            else:
                tally.wrong["another file than a fresh engine makes alone"] += 1
    return same


def _report(tally: Tally, memory: list[tuple[float, float]], same: int) -> None:
    warm = [megabytes for _, megabytes in memory[int(WARM_UP * len(memory)) :]]
    third = max(1, len(warm) // 3)
    first, last = statistics.median(warm[:third]), statistics.median(warm[-third:])
    waits = sorted(tally.seconds) or [0.0]
    rows = {
        "results": f"{len(tally.seconds)} of {len(tally.made)} different requests",
        "a result took": f"{tally.lasted / max(1, len(tally.seconds)):.2f} s",
        "till it came": f"median {statistics.median(waits):.1f} s, longest {waits[-1]:.1f} s",
        "refused": f"{tally.refused}, told {min(tally.told or [0])} to {max(tally.told or [0])} s",
        "made alone": f"{same} the same, byte for byte",
        "memory": f"{first:.0f} MB after warm-up, {last:.0f} MB at the end ({last / first - 1:+.1%}),"
        f" at most {max(warm):.0f} MB",
        "wrong": str(sum(tally.wrong.values())),
    }
    print("\n" + "\n".join(f"{name:14} {value}" for name, value in rows.items()))


if __name__ == "__main__":
    sys.exit(main())
