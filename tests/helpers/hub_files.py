"""A small release on the hub and its files."""

from __future__ import annotations

from pathlib import Path

from triplaneturbo.models.hub import Release, Source

SMALL = Release(
    "the thing",
    (Source("first/thing", "a" * 40), Source("second/thing")),
    (("config.json",), ("weights/half.bin", "weights/whole.bin")),
)


FILES = {"config.json": b"{}", "weights/half.bin": bytes(range(256)) * 4000}


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
