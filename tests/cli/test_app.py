"""app.py: errors before the page is served. The page itself is tested in tests/ui."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import app
from tests.helpers.quick import load_once
from triplaneturbo.__main__ import parser, run_reporting_errors
from triplaneturbo.cli import serve
from triplaneturbo.serving import engine


def _serve(*argv: str) -> int:
    return run_reporting_errors(
        lambda: serve.run(app.options().parse_args(["--port", "0", *argv])), "Stopped."
    )


@pytest.mark.parametrize("argv", [["--port", "http"], ["--share"], ["a cup"], ["--quota", "nan"]])
def test_bad_flags_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        app.options().parse_args(argv)
    assert leaving.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_server_is_local_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    monkeypatch.delenv("GRADIO_SERVER_PORT", raising=False)
    assert app.options().parse_args([]).host == "127.0.0.1"
    assert app.options().parse_args([]).port == 7860
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")  # a Space says so
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7861")
    assert app.options().parse_args([]).host == "0.0.0.0"
    assert app.options().parse_args([]).port == 7861


def test_serve_command_has_the_flags_of_app() -> None:
    told, command = (vars(one.parse_args(argv)) for one, argv in ((app.options(), []), (parser(), ["serve"])))
    assert command.pop("run") is serve.run
    assert command == told


def test_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert _serve("--model", "enormous") == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "no model 'enormous'" in said.err


def test_port_in_use_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "_load", load_once)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        where = ("--port", str(port), "--outputs", str(tmp_path / "history"))
        assert _serve("--model", "small", "--device", "cpu", *where) == 2
    said = capsys.readouterr()
    assert f"port {port}: the port is in use" in said.err.splitlines()[-1]
    assert "Open" not in said.out
    assert {path.name for path in tmp_path.rglob("*")} <= {"history", ".lock"}  # what was live is gone


@pytest.mark.parametrize("flag", ["--queue", "--per-minute", "--quota"])
def test_limit_below_one_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _serve("--model", "small", flag, "0") == 2
    assert capsys.readouterr().err == f"Invalid {flag} 0; use 1 or more.\n"


def test_invalid_output_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert _serve("--model", "small", "--outputs", str(tmp_path / "file" / "history")) == 2
    said = capsys.readouterr().err
    assert "choose another --outputs" in said
    assert said.count("\n") == 1
