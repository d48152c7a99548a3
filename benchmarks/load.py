"""Load test: many concurrent clients on the built-in model: python -m benchmarks.load [--clients 50]

Each client requests one mesh after the other and, if the queue is full, retries after the time given by the
server. Failures are: any other error; a result for another prompt or seed; a file whose checksum differs from
the reported one; different files for the same request; a file that differs from what a new, idle engine
generates. The server's memory is printed during the run. The exit code is 1 if there are failures.
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
SEEDS = 25  # 400 different requests with the prompts: most are made once, some twice
ROW = 10  # seconds between the rows of the table
WARM_UP = 0.25  # fraction of the time in which memory may grow


@dataclass
class Tally:
    """Statistics of all requests, guarded by `lock`.

    Attributes:
        results: sha256, name and settings of the GLB of each (prompt, seed).
        seconds: latency of each result since its first request, including refusals.
        refused: number of requests refused because the queue was full.
        retry_after: retry times in seconds that the server gave with its refusals.
        wrong: failures and their counts.
        duration: seconds until the last client had its last result.
    """

    results: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    retry_after: list[int] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    duration: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> int:
    """Run the load test and print the results; returns 1 if there are failures."""
    parser = argparse.ArgumentParser(description="Run the load test.")
    parser.add_argument("--clients", type=int, default=50, help="number of concurrent clients")
    parser.add_argument("--seconds", type=float, default=120, help="duration of the load")
    parser.add_argument("--queue", type=int, default=16, help="maximum number of queued requests")
    parser.add_argument("--sample", type=int, default=12, help="results to regenerate with a new engine")
    arguments = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        with _server(Path(folder), arguments.queue) as (url, process):
            memory = _load(url, process, arguments.clients, arguments.seconds, Path(folder), tally)
        log = (Path(folder) / "log").read_text(encoding="utf-8")
        if process.returncode or "Traceback" in log:
            tally.wrong[f"the server exited with code {process.returncode}: {log[-3000:]}"] += 1
    if tally.results:
        same = _regenerate(tally, arguments.sample)
        _report(tally, memory, same)
    for what, often in tally.wrong.most_common():
        print(f"{often:6} x {what}")
    return 1 if tally.wrong else 0


@contextmanager
def _server(folder: Path, queue: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start app.py; yields its URL and process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--model", "small", "--device", "cpu", "--port", str(port)]
    # Practically no rate limit.
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
    """Run the clients for `seconds`; returns the server's memory as (seconds, MB), once per second."""
    barrier = threading.Barrier(clients + 1, timeout=120)
    deadline = [0.0]
    threads = [
        threading.Thread(target=_client, args=(url, number, barrier, deadline, folder / str(number), tally))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.monotonic()
    deadline[0] = start + seconds
    barrier.wait()
    print(f"{'s':>5} {'RSS in MB':>10} {'results':>8} {'refused':>8} {'failed':>6}")
    memory = []
    server = psutil.Process(process.pid)
    while (now := time.monotonic() - start) < seconds and process.poll() is None:
        memory.append((now, server.memory_info().rss / 1e6))
        if len(memory) % ROW == 1:
            with tally.lock:
                done, refused, wrong = len(tally.seconds), tally.refused, sum(tally.wrong.values())
            print(f"{now:5.0f} {memory[-1][1]:10.0f} {done:8} {refused:8} {wrong:6}", flush=True)
        time.sleep(1)
    if process.poll() is not None:
        deadline[0] = 0.0
        tally.wrong["the server exited early"] += 1
    for thread in threads:
        thread.join()
    tally.duration = time.monotonic() - start
    return memory


def _client(
    url: str, number: int, barrier: threading.Barrier, deadline: list[float], folder: Path, tally: Tally
) -> None:
    """Run one client until the deadline."""
    rng = random.Random(number)
    client = Client(url, verbose=False, download_files=str(folder), analytics_enabled=False)
    barrier.wait()
    barrier.wait()
    while time.monotonic() < deadline[0]:
        _ask(client, rng.choice(PROMPTS), rng.randrange(SEEDS), deadline[0], tally)
    client.close()


def _ask(client: Client, prompt: str, seed: int, deadline: float, tally: Tally) -> None:
    """Request one mesh, retrying while the queue is full, and check the result."""
    start = time.monotonic()
    while time.monotonic() < deadline:
        try:
            path, facts = client.predict(prompt, seed=seed, api_name="/generate")
        except AppError as error:
            full = FULL.fullmatch(str(error))
            with tally.lock:
                if full is None:
                    tally.wrong[str(error)] += 1
                    return
                tally.refused += 1
                tally.retry_after.append(int(full[1]))
            time.sleep(max(0.0, min(int(full[1]), deadline - time.monotonic())))
            continue
        except Exception as error:
            with tally.lock:
                tally.wrong[f"{type(error).__name__}: {error}"] += 1
            return
        data = Path(path).read_bytes()
        Path(path).unlink()
        with tally.lock:
            tally.seconds.append(time.monotonic() - start)
            _check(tally, prompt, seed, facts, hashlib.sha256(data).hexdigest())
        return


def _check(tally: Tally, prompt: str, seed: int, facts: dict[str, Any], digest: str) -> None:
    """Check that a result matches its request, its checksum and earlier results of the same request."""
    if (facts["prompt"], facts["seed"]) != (prompt, seed):
        tally.wrong["a result for another prompt or seed"] += 1
    glb = facts["files"][0]
    if glb["sha256"] != digest:
        tally.wrong["a file with another checksum than reported"] += 1
    first = tally.results.setdefault(
        (prompt, seed), {"sha256": digest, "name": glb["name"], **facts["settings"]}
    )
    if first["sha256"] != digest:
        tally.wrong["different files for the same request"] += 1


def _regenerate(tally: Tally, count: int) -> int:
    """Regenerate `count` results one by one with a new engine; returns how many are byte-identical."""
    chosen = random.Random(0).sample(sorted(tally.results), min(count, len(tally.results)))
    same = 0
    with Engine("small", device="cpu") as engine:
        for prompt, seed in chosen:
            settings = dict(tally.results[prompt, seed])
            digest, name = settings.pop("sha256"), Path(settings.pop("name")).stem
            result = engine.submit(Request(prompt, seed=seed, **settings)).result()
            if hashlib.sha256(engine.encode(result, "glb", name).data).hexdigest() == digest:
                same += 1
            else:
                tally.wrong["a file that differs from a new engine's"] += 1
    return same


def _report(tally: Tally, memory: list[tuple[float, float]], same: int) -> None:
    """Print the statistics."""
    warm = [megabytes for _, megabytes in memory[int(WARM_UP * len(memory)) :]]
    third = max(1, len(warm) // 3)
    first, last = statistics.median(warm[:third]), statistics.median(warm[-third:])
    waits = sorted(tally.seconds) or [0.0]
    rows = {
        "results": f"{len(tally.seconds)} of {len(tally.results)} different requests",
        "throughput": f"one result per {tally.duration / max(1, len(tally.seconds)):.2f} s",
        "latency": f"median {statistics.median(waits):.1f} s, maximum {waits[-1]:.1f} s",
        "refused": f"{tally.refused}, retry after {min(tally.retry_after or [0])} to "
        f"{max(tally.retry_after or [0])} s",
        "regenerated": f"{same} byte-identical",
        "memory": f"{first:.0f} MB after warm-up, {last:.0f} MB at the end ({last / first - 1:+.1%}),"
        f" maximum {max(warm):.0f} MB",
        "failures": str(sum(tally.wrong.values())),
    }
    print("\n" + "\n".join(f"{name:14} {value}" for name, value in rows.items()))


if __name__ == "__main__":
    sys.exit(main())
