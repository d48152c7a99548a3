"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from triplaneturbo.errors import UserError
from triplaneturbo.utils.atomic_files import write_atomically


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_write_creates_file_and_folders(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "a" / "b" / "c.bin", b"\0\1\2")
    assert path.read_bytes() == b"\0\1\2"
    assert [entry.name for entry in path.parent.iterdir()] == ["c.bin"]


def test_written_files_have_default_permissions(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.write_bytes(b"")
    assert write_atomically(tmp_path / "whole", b"").stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = write_atomically(tmp_path / "mesh.glb", b"old")
    monkeypatch.setattr(os, call, _full)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mesh.glb"]


def test_interrupt_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "mesh.glb", b"new")
    assert list(tmp_path.iterdir()) == []


def test_file_instead_of_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"Cannot write to .*; choose another folder"):
        write_atomically(tmp_path / "file" / "mesh.glb", b"")


def test_folder_instead_of_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mesh.glb").mkdir()
    with pytest.raises(UserError, match="Cannot write"):
        write_atomically(tmp_path / "mesh.glb", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mesh.glb"]
