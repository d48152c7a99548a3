"""Start in unusual environments: variables, proxies, folders and locales. Servers are real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.quick import QUICK
from triplaneturbo.__main__ import main
from triplaneturbo.cli import doctor, environment_checks
from triplaneturbo.cli.flags import utf8
from triplaneturbo.errors import UserError
from triplaneturbo.models import catalog
from triplaneturbo.serving.gradio_environment import without_proxies
from triplaneturbo.serving.preflight import check_served_folder

MODULE = [sys.executable, "-m", "triplaneturbo"]
APP = [sys.executable, str(ROOT / "app.py"), "--model", "small", "--device", "cpu"]
BYTES_ONLY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STARTUP_TIMEOUT = 300  # seconds until a server has started on a machine that is busy with other tests
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

needs_unix = pytest.mark.skipif(os.name != "posix", reason="for Unix shells")


def _environment(**values: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")}
    return {**inherited, "PYTHONPATH": str(ROOT), **values}


def _run(command: list[str], folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=_environment(**environment),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=STARTUP_TIMEOUT,
    )


Serve = Callable[..., subprocess.Popen]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server in a shell, so that its streams can be redirected; it is stopped after the test."""
    started: list[subprocess.Popen] = []

    def start(argv: list[str], folder: Path, redirection: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *APP, *argv],
            cwd=folder,
            env=_environment(**environment),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _until(condition: Callable[[], object], process: subprocess.Popen, log: Path | None = None) -> object:
    end = time.monotonic() + STARTUP_TIMEOUT
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        assert process.poll() is None, log.read_text() if log else process.returncode
        time.sleep(0.2)
    raise AssertionError(log.read_text() if log else "the page does not answer")


def _answers(url: str) -> bool:
    try:
        return _direct.open(url, timeout=10).status == 200
    except OSError:
        return False


def _family() -> tuple[str, str]:
    """The most general address on which to listen, and the URL that reaches it from this machine."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return "0.0.0.0", "127.0.0.1"
    return "::", "[::1]"


@needs_unix
def test_two_servers_share_a_folder(serve: Serve, tmp_path: Path) -> None:
    """The first in an unusual folder, with variables that break Gradio; the second with lost output."""
    from gradio_client import Client

    folder = tmp_path / 'it\'s "odd" $HOME #1 %20 ü蘑🍄'
    temporary = tmp_path / "temporary"
    for path in (folder, temporary):
        path.mkdir()
    (temporary / "gradio").write_text("as unusable as somebody else's folder")
    hostile = {
        "ALL_PROXY": "socks5://127.0.0.1:1",
        "http_proxy": "ftp://127.0.0.1:1",
        "GRADIO_SERVER_PORT": "abc",
        "GRADIO_SERVER_NAME": "::1",
        "GRADIO_NUM_PORTS": "many",
        "GRADIO_SHARE": "true",
        "GRADIO_DEBUG": "1",
        "GRADIO_MCP_SERVER": "true",
        "WEB_CONCURRENCY": "auto",
        "TMPDIR": str(temporary),
        "PYTHONIOENCODING": "ascii",
    }
    log = tmp_path / "log"
    log.touch()
    host, local = _family()
    first = serve(["--host", host, "--port", "0"], folder, f'>"{log}" 2>&1', **hostile)
    port = _free_port()
    shared = str(folder / "outputs" / "history")
    lost = ["--port", str(port), "--outputs", shared]
    second = serve(lost, tmp_path, ">/dev/full 2>&-", HOME="/nonexistent", TMPDIR=str(tmp_path / "missing"))

    found = _until(lambda: re.search(r"^Open (\S+)$", log.read_text(), re.MULTILINE), first, log)
    url = found[1]
    assert re.fullmatch(rf"http://{re.escape(local)}:[1-9]\d*/", url)
    assert _answers(url)
    said = log.read_text()
    assert "Ignored variables: GRADIO_DEBUG, GRADIO_MCP_SERVER, GRADIO_NUM_PORTS, GRADIO_SHARE; use" in said
    assert re.search(r"^Open \S+\nListening on all IPv[46] addresses", said, re.MULTILINE)
    _until(lambda: _answers(f"http://127.0.0.1:{port}/"), second)

    for address in (url, f"http://127.0.0.1:{port}/"):
        with without_proxies():
            client = Client(address, verbose=False, download_files=str(tmp_path / "downloads"))
            file, facts = client.predict("a red mushroom", seed=1, resolution=32, api_name="/generate")
        assert Path(file).read_bytes()[:4] == b"glTF"
        assert facts["seed"] == 1
    for process in (first, second):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert [path.name for path in temporary.iterdir()] == ["gradio"]
    assert [path.name for path in Path(shared).iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ["--port", "70000"],
            "Argument --port: invalid value '70000': use a whole number from 0 (any free port) to 65535",
        ),
        (["--port", "-1"], "Argument --port: invalid value '-1': use a whole number from 0"),
        (
            ["--host", "http://127.0.0.1"],
            "Invalid host 'http://127.0.0.1': it is a URL; use --host 127.0.0.1.",
        ),
        (["--host", "127.0.0.1:8000"], "it includes a port; use --host 127.0.0.1 --port 8000."),
    ],
)
def test_invalid_address_is_refused(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["serve", "--model", "enormous", *argv])  # which would be said later
    except SystemExit as leaving:
        code = leaving.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err


def test_invalid_port_in_environment_is_ignored_if_unused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", "abc")
    assert main(["serve", "--model", "enormous"]) == 2
    assert capsys.readouterr().err.startswith("Invalid GRADIO_SERVER_PORT 'abc'; use a whole number")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "abc")  # the start takes it away from Gradio
    assert main(["serve", "--model", "enormous", "--port", "0"]) == 2
    assert "no model 'enormous'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[*MODULE, "generate", "a cup"], APP], ids=["generate", "app.py"])
def test_missing_docstrings_are_explained(command: list[str]) -> None:
    done = _run(command, PYTHONOPTIMIZE="2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "unset PYTHONOPTIMIZE" in done.stderr


@pytest.mark.parametrize("argv", [["--help"], ["words"], ["generate", "--help"]], ids=" ".join)
def test_commands_without_page_work_without_docstrings(argv: list[str]) -> None:
    done = _run([*MODULE, *argv], PYTHONOPTIMIZE="2")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 100


@needs_unix
@pytest.mark.parametrize("command", [[*MODULE, "generate", "a cup"], APP, [*MODULE, "doctor"]])
def test_deleted_working_folder_is_explained(command: list[str], tmp_path: Path) -> None:
    gone = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    (tmp_path / "gone").mkdir()
    done = _run(["sh", "-c", gone, "sh", str(tmp_path / "gone"), *command])
    said = done.stdout + done.stderr
    assert done.returncode == (1 if "doctor" in command else 2)
    assert "The working directory no longer exists" in said
    assert "No problems found" not in said
    assert "Traceback" not in said


@needs_unix
def test_c_locale_keeps_prompts_and_paths(tmp_path: Path) -> None:
    prompt = "ein grüner 蘑🍄"
    command = [*MODULE, "generate", prompt, "-o", "hüt 蘑🍄.glb", "--json", *QUICK]
    done = _run(command, tmp_path, **BYTES_ONLY)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hüt 蘑🍄.glb").stat().st_size > 1000
    assert json.loads(done.stdout)["prompt"] == prompt


def test_text_outside_utf_8_is_kept() -> None:
    for text in ("a cup", "grün", "\udcff", "a\ud800"):
        assert utf8(text) == text


@pytest.mark.parametrize("name", ["line\nbreak", "escape\x1b[31m", "\udcff"], ids=ascii)
def test_folder_without_valid_url_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose another --outputs") as refused:
        check_served_folder(tmp_path / name / "history")
    assert "\n" not in str(refused.value)


def test_folders_with_unusual_names_are_served(tmp_path: Path) -> None:
    check_served_folder(tmp_path / 'it\'s "odd" %20 #? ü蘑🍄 فطر')


def test_proxy_variables_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    monkeypatch.setenv("all_proxy", "gopher://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with without_proxies():
        httpx.Client().close()
    assert os.environ["no_proxy"] == "example.org"
    assert "NO_PROXY" not in os.environ
    with pytest.raises(ValueError, match="scheme"):
        httpx.Client()


def test_gradio_uses_a_temporary_folder_of_the_process(tmp_path: Path) -> None:
    """For every way to start the page."""
    (tmp_path / "gradio").write_text("somebody else's")
    program = (
        "import triplaneturbo.ui.generate.panels, os, gradio.routes, tempfile\n"
        "assert gradio.routes.DEFAULT_TEMP_DIR == os.environ['GRADIO_TEMP_DIR']\n"
        "assert os.path.isdir(gradio.routes.DEFAULT_TEMP_DIR)\n"
        "print(os.path.dirname(gradio.routes.DEFAULT_TEMP_DIR) == tempfile.gettempdir())\n"
    )
    done = _run([sys.executable, "-c", program], TMPDIR=str(tmp_path), ALL_PROXY="socks5://127.0.0.1:1")
    assert done.stdout == "True\n", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["gradio"]


def test_missing_temporary_folder_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torch cannot be imported in this case."""

    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    for command, code in ((["generate", "a cup"], 2), (["serve"], 2), (["doctor"], 1)):
        assert main(command) == code
        out, err = capsys.readouterr()
        assert "set TMPDIR to one" in out + err
        assert "No problems found" not in out


UNWELL = [
    ("GRADIO_SERVER_PORT", "abc", "or set --port"),
    ("GRADIO_SERVER_PORT", "70000", "or set --port"),
    ("GRADIO_SERVER_NAME", "http://127.0.0.1:8000", "use --host 127.0.0.1 --port 8000"),
    ("GRADIO_SERVER_NAME", "192.0.2.77", "use --host 127.0.0.1"),
    ("ALL_PROXY", "socks5://127.0.0.1:1", "socks"),
    ("all_proxy", "gopher://127.0.0.1:1", "correct the variable"),
]


@pytest.mark.parametrize(("name", "value", "remedy"), UNWELL)
def test_doctor_reports_environment_problems(
    name: str,
    value: str,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    for part in ("_machine", "_packages", "_devices", "_models"):
        monkeypatch.setattr(doctor, part, list)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "No problems found" not in said
    assert remedy in said
    assert "Problems found: 1." in said


def test_local_requests_bypass_proxies() -> None:
    program = (
        "import os\n"
        "from triplaneturbo.serving.gradio_environment import prepare\n"
        "prepare()\n"
        "assert os.environ['no_proxy'] == os.environ['NO_PROXY'] == 'example.org,localhost,127.0.0.1,::1'\n"
    )
    assert _run([sys.executable, "-c", program], no_proxy="example.org").returncode == 0


def test_terminated_server_deletes_its_temporary_folder(tmp_path: Path) -> None:
    """In this case the process skips its exit handlers."""
    program = (
        "import os\n"
        "from triplaneturbo.serving.gradio_environment import prepare, temporary_folder_removed\n"
        "prepare()\n"
        "assert os.path.isdir(os.environ['GRADIO_TEMP_DIR'])\n"
        "with temporary_folder_removed():\n"
        "    pass\n"
        "os._exit(0)\n"
    )
    assert _run([sys.executable, "-c", program], TMPDIR=str(tmp_path)).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_doctor_reports_ignored_variables_and_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SHARE", "true")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("GRADIO_SERVER_PORT", str(taken.getsockname()[1]))
        findings = list(environment_checks.check_environment())
    assert not any(finding.remedy for finding in findings)
    told = {finding.what: finding.found for finding in findings}
    assert "GRADIO_SHARE" in told["Gradio's variables"]
    assert "in use; --port 0" in told["page's address"]


def test_doctor_reports_unwritable_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert environment_checks.outputs_folder() == ("results", str(tmp_path / "outputs"), "")
    (tmp_path / "outputs").write_text("in the way")
    assert "is not a folder" in environment_checks.outputs_folder().found
    (tmp_path / "outputs").unlink()
    monkeypatch.setattr(environment_checks.os, "access", lambda *_: False)
    assert "-o FOLDER/" in environment_checks.outputs_folder().remedy
    (tmp_path / "a\nb").mkdir()
    monkeypatch.chdir(tmp_path / "a\nb")
    assert "control character" in environment_checks.outputs_folder().found


def test_missing_home_folder_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(UserError, match="set XDG_CACHE_HOME"):
        catalog._cache()
