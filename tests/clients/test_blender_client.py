"""The HTTP calls of the Blender add-on, without Blender: broken answers are one sentence."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.helpers.answering import answering
from tests.helpers.module_file import load_file
from tests.helpers.paths import ROOT

ADDON = ROOT / "clients" / "blender" / "triplaneturbo_blender.py"
BROKEN = {
    "closed": b"",
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "long line": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "not json": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "other json": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
}


@pytest.fixture
def addon(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The add-on, with as much of Blender as its import needs."""
    bpy = ModuleType("bpy")
    bpy.types = SimpleNamespace(Operator=object, Panel=object)  # type: ignore[attr-defined]
    bpy.props = SimpleNamespace(StringProperty=dict, IntProperty=dict)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bpy", bpy)
    return load_file(ADDON)


def operator(addon: Any, server: str) -> tuple[Any, list[str]]:
    """An operator that is to ask a server, and the list of what it reports."""
    made, said = addon.TRIPLANETURBO_OT_generate(), []
    made._asked, made._location, made._data, made._error = (server, "a cup", 0), None, b"", ""
    made.report = lambda kinds, sentence: said.append(sentence)
    return made, said


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_broken_answer_is_one_sentence(answer: bytes, addon: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(ConnectionError):
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        made, said = operator(addon, f"http://127.0.0.1:{listening.getsockname()[1]}")
        made._work()
        thread.join()
    assert made._finish() == {"CANCELLED"}
    assert len(said) == 1
    assert "127.0.0.1" in said[0]
    assert "Internal error" not in said[0]


def test_a_file_elsewhere_is_not_read(addon: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret.glb"
    secret.write_bytes(b"glTF secret")
    for path in ("a.glb", secret.as_uri(), str(secret)):
        with answering({"path": path, "url": secret.as_uri()}, b"glTF of the server") as server:
            assert addon.generate(server, "a cup", 0) == b"glTF of the server"


def test_unexpected_errors_are_reported(addon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> bytes:
        raise RuntimeError("out of paper")

    monkeypatch.setattr(addon, "generate", fail)
    made, said = operator(addon, "http://127.0.0.1:9")
    made._work()
    assert made._finish() == {"CANCELLED"}
    assert said == ["Internal error (RuntimeError: out of paper); please report it."]


def test_no_data_is_not_imported(addon: Any) -> None:
    made, said = operator(addon, "http://127.0.0.1:9")
    assert made._finish() == {"CANCELLED"}
    assert said == ["The server sent no mesh."]
