"""The load of the machine by other processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from triplaneturbo.utils import cpu_load
from triplaneturbo.utils.cpu_load import CpuLoad


def write_stat(path: Path, user: int, idle: int, guest: int = 0) -> None:
    path.write_text(f"cpu  {user} 0 0 {idle} 7 0 0 0 {guest} 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")


@pytest.fixture
def stat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file in place of /proc/stat, in hundredths of a second, beside a clock of ten seconds per reading."""
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(cpu_load, "STAT", tmp_path / "stat")
    monkeypatch.setattr(cpu_load.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(cpu_load.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(cpu_load.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(cpu_load.time, "process_time", lambda: 5.0)
    return tmp_path / "stat"


def test_load_is_the_busy_time_of_other_processes(stat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stat(stat, 1000, 0)
    load = CpuLoad()
    write_stat(stat, 3000, 900)
    monkeypatch.setattr(cpu_load.time, "process_time", lambda: 10.0)  # 5 of these 20 s were its own
    assert load.others() == pytest.approx(1.5)
    write_stat(stat, 3000, 4000, guest=500)
    assert load.describe() == "other programs use 0.0 of 4 cores"
    write_stat(stat, 6000, 4000)
    assert load.describe() == "other programs use 3.0 of 4 cores: meshes take longer"


def test_a_measurement_is_kept_for_a_moment(stat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stat(stat, 1000, 0)
    load = CpuLoad()
    write_stat(stat, 2000, 0)
    assert load.others() == pytest.approx(1.0)
    monkeypatch.setattr(cpu_load.time, "perf_counter", lambda: 10.1)
    write_stat(stat, 9000, 0)
    assert load.others() == pytest.approx(1.0)


def test_load_is_unknown_without_proc(stat: Path) -> None:
    load = CpuLoad()
    assert load.others() is None
    assert load.describe() == ""


@pytest.mark.skipif(not cpu_load.STAT.is_file(), reason="needs /proc/stat")
def test_the_kernel_is_read_and_ended_children_are_no_other_programs() -> None:
    before = cpu_load._read()
    code = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    after = cpu_load._read()
    assert before is not None
    assert after is not None
    wall, busy, own = (new - old for new, old in zip(after, before, strict=True))
    assert own > 0.29
    assert busy > own - 0.05  # the kernel counts in hundredths
    assert wall > 0.29
