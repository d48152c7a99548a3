"""What every test may ask for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.parity_files import PARITY
from tests.helpers.paths import ROOT
from tests.helpers.slow_tests import function_of, read_slow_tests

# Read when triplaneturbo.models.adapters is imported, so that tests do not see adapters that were made here.
_LIBRARY = tempfile.TemporaryDirectory(prefix="triplaneturbo-adapters-")
os.environ["TRIPLANETURBO_ADAPTERS"] = _LIBRARY.name
# Where pytest runs in several processes (-n), each has its share of the cores, and so have the processes that
# it starts: some tests compare their bytes, which depend on the number of threads.
PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
if PROCESSES > 1:
    torch.set_num_threads(max(1, torch.get_num_threads() // PROCESSES))
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())


def _drives_a_browser(file: str | Path) -> bool:
    return Path(file).name.startswith("test_browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests; in several processes, start the browser tests, a third of the time, halfway."""
    slow_tests = read_slow_tests()
    for item in items:
        if function_of(item.nodeid) in slow_tests:
            item.add_marker(pytest.mark.slow)
    if PROCESSES > 1:
        browser = [item for item in items if _drives_a_browser(item.path)]
        rest = [item for item in items if not _drives_a_browser(item.path)]
        half = len(rest) // 2
        items[:] = rest[:half] + browser + rest[half:]


class _FailuresAtOnce:
    """Names each failure and rerun when it happens, so that a run that is stopped has told what failed."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome in ("failed", "rerun"):
            self._terminal.write("\n")
            self._terminal.write_line(
                f"{report.outcome}: {report.nodeid} ({report.when}, {report.duration:.0f} s)"
            )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        config.pluginmanager.register(_FailuresAtOnce(terminal))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file to a process, in their order; all that drive a browser to one, since two would starve it."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "browser" if _drives_a_browser(file) else file

    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of the public implementation's numbers (`TRIPLANETURBO_PARITY`, else ../shared/parity)."""
    if not PARITY.is_dir():
        pytest.skip(f"no parity data at {PARITY}: set TRIPLANETURBO_PARITY to have this test run")
    return PARITY


@pytest.fixture(scope="session")
def facts() -> Path:
    """The folder of facts on the released weights; beside the parity data."""
    folder = ROOT.parent / "shared" / "facts"
    if not folder.is_dir():
        pytest.skip(f"no facts at {folder}")
    return folder
