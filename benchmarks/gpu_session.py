"""Everything that a GPU is to answer, within a time limit: python -m benchmarks.gpu_session [--minutes 9]

Runs `benchmarks.gpu`, which begins with a self-test, and `benchmarks.prd` one after the other, each in its
own process, which is stopped when its share of the time is over. What they print goes to the screen and to
FOLDER/*.txt, and each figure, as soon as it is measured, as a line of JSON to FOLDER/*.jsonl. A session that
is cut short keeps what it has. Exits with 1 if a benchmark failed or was stopped.

`--tiny --device cpu` is its dry run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.results import say
from triplaneturbo.__main__ import run_reporting_errors

# Benchmarks, and their shares of the time that is left when they begin.
SHARES = {"gpu": 0.5, "prd": 1.0}


def run(name: str, flags: list[str], folder: Path, seconds: float, grace: float) -> bool:
    """Run a benchmark; return whether it ended by itself without an error.

    Args:
        name: module in this folder.
        flags: its command-line arguments.
        folder: folder for its output and results.
        seconds: time after which it is stopped.
        grace: seconds before that in which it begins no further section.
    """
    command = [
        sys.executable,
        "-u",
        "-m",
        f"benchmarks.{name}",
        *flags,
        "--results",
        f"{folder / name}.jsonl",
    ]
    command += ["--seconds", f"{max(0.0, seconds - grace):.0f}"]
    say(f"\n== {name}, at most {seconds:.0f} s")
    start = time.monotonic()
    with (
        (folder / f"{name}.txt").open("w", encoding="utf-8") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        limit = threading.Timer(seconds, process.kill)
        limit.start()
        assert process.stdout is not None
        for line in process.stdout:
            say(line, end="")
            file.write(line)
            file.flush()
        code = process.wait()
        limit.cancel()
    took = time.monotonic() - start
    how = "ok" if code == 0 else "stopped, the time is up" if took >= seconds else f"failed with code {code}"
    path = folder / f"{name}.jsonl"
    count = len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
    say(f"== {name}: {how}, {took:.0f} s, {count} results in {path}")
    return code == 0


def main() -> int:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description="Run all GPU benchmarks within a time limit.")
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit of all together")
    parser.add_argument(
        "--grace", type=float, default=15.0, help="seconds before the end in which nothing more is begun"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-session"), metavar="FOLDER")
    parser.add_argument("--device", default="cuda", help="torch device")
    parser.add_argument("--repeats", type=int, help="timed calls or iterations; default: the benchmarks' own")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a dry run")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    flags = ["--device", arguments.device, *(["--tiny"] if arguments.tiny else [])]
    flags += [] if arguments.repeats is None else ["--repeats", str(arguments.repeats)]
    end = time.monotonic() + 60 * arguments.minutes
    worked = [
        run(name, flags, arguments.out, share * (end - time.monotonic()), arguments.grace)
        for name, share in SHARES.items()
    ]
    return int(not all(worked))


if __name__ == "__main__":
    sys.exit(run_reporting_errors(main, "Stopped."))
