"""Standard streams that are closed, full, broken or of a limited encoding, each in a separate process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

MODULE = [sys.executable, "-m", "triplaneturbo"]
APP = [sys.executable, str(ROOT / "app.py")]
WORLD = [sys.executable, "-m", "triplaneturbo.toyworld"]
needs_unix = pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="this system has no SIGPIPE")
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
PRINTING = {
    "words": [*MODULE, "words"],
    "json": [*MODULE, "words", "--json"],
    "unbuffered": [sys.executable, "-u", "-m", "triplaneturbo", "words"],
    "help": [*MODULE, "--help"],
    "command's help": [*MODULE, "generate", "--help"],
    "version": [*MODULE, "--version"],
    "app.py": [*APP, "--help"],
    "world": [*WORLD, "--help"],
}


def _run(command: list[str], redirection: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=120,
    )


@needs_unix
@pytest.mark.parametrize("command", PRINTING.values(), ids=PRINTING)
def test_broken_pipe_ends_the_command(command: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)  # before anything is printed, so that no test depends on who is quicker
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


@needs_full
@pytest.mark.parametrize("command", PRINTING.values(), ids=PRINTING)
def test_full_output_device(command: list[str]) -> None:
    done = _run(command, ">/dev/full")
    said = f"Cannot write to standard output: {os.strerror(errno.ENOSPC)}.\n"
    assert (done.returncode, done.stderr) == (1, said)


@needs_unix
@pytest.mark.parametrize("name", ["words", "help", "version"])
def test_closed_standard_output(name: str) -> None:
    done = _run(PRINTING[name], ">&-")
    said = f"Cannot write to standard output: {os.strerror(errno.EBADF)}.\n"
    assert (done.returncode, done.stderr) == (1, said)


@needs_full
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "argv", [["generate", "--steps", "x"], ["generate", "a cup", "-o", "cup.fbx"]], ids=["usage", "input"]
)
def test_closed_standard_error_keeps_the_exit_code(redirection: str, argv: list[str]) -> None:
    assert _run([*MODULE, *argv], redirection).returncode == 2


@needs_unix
def test_files_do_not_reuse_closed_standard_streams(tmp_path: Path) -> None:
    """With standard output closed, the first file that is opened would take its descriptor."""
    program = (
        "import os, sys\n"
        "from triplaneturbo.__main__ import enter\n"
        "def main():\n"
        f"    file = open({str(tmp_path / 'mesh.glb')!r}, 'w')\n"
        "    file.write('mesh'); file.flush()\n"
        "    print('printed'); file.close()\n"
        "    return 0\n"
        "enter(main)\n"
    )
    assert _run([sys.executable, "-c", program], ">&- <&-").returncode == 1
    assert (tmp_path / "mesh.glb").read_text() == "mesh"


@pytest.mark.parametrize(
    ("environment", "printed"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "\\xfc\\u8611\\U0001f344"),
        ({"PYTHONIOENCODING": "latin-1"}, "\udcfc\\u8611\\U0001f344"),
        ({"PYTHONIOENCODING": "utf-8"}, "ü蘑🍄"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "\\xfc\\u8611\\U0001f344"),
        ({"LC_ALL": "C", "LANG": "C"}, "ü蘑🍄"),
    ],
    ids=["ascii", "latin-1", "utf-8", "C without UTF-8", "C"],
)
def test_unencodable_output_is_escaped(environment: dict[str, str], printed: str) -> None:
    """An undecodable byte of a path is printed unchanged."""
    program = (
        "from triplaneturbo.__main__ import enter\n"
        "enter(lambda: print('\\u00fc\\u8611\\U0001f344', '\\udcff'))\n"
    )
    environment = {"PYTHONUTF8": "0", **environment} if "LANG" not in environment else environment
    done = _run([sys.executable, "-c", program], "", **environment)
    assert done.stdout.split() == [printed, "\udcff"], done.stderr
    assert done.returncode == 0
