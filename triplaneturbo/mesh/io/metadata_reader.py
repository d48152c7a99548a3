"""Read the generation metadata of a mesh file.

Files are untrusted: no more than their heads are read, up to a limit.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO
from xml.sax.saxutils import unescape

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.generation_metadata import (
    KEY,
    LARGEST,
    THREEMF_METADATA,
    THREEMF_MODEL,
    GenerationMetadata,
    from_dict,
    parse,
)
from triplaneturbo.request import shown

_HEAD = 2 * LARGEST  # bytes of a text file in which the comment is searched for
LARGEST_GLB_JSON = 16_000_000  # bytes; a GLB of this package has some 10,000
_LARGEST_USDZ = 1_000_000_000  # bytes
_GLB, _JSON = 0x46546C67, 0x4E4F534A  # "glTF", "JSON"


def read_metadata(path: str | os.PathLike[str]) -> GenerationMetadata:
    """Read how the mesh in a file was generated: a .glb, .zip (OBJ), .obj, .ply, .usdz or .3mf.

    Raises:
        UserError: the file cannot be read, has no metadata, or has invalid ones.
    """
    path = Path(path).expanduser()
    find = _FINDERS.get(path.suffix.lower())
    if find is None:
        raise UserError(
            f"{shown(path.name)} cannot contain settings; choose a file that ends in {', '.join(_FINDERS)}."
        )
    try:
        found = find(path)
    except OSError as error:
        raise UserError(f"Cannot read {shown(str(path))}: {error.strerror or error}.") from None
    except (ValueError, KeyError, zipfile.BadZipFile, zlib.error, struct.error, RecursionError, EOFError,
            NotImplementedError, RuntimeError):  # fmt: skip
        raise UserError(f"{shown(path.name)} is not a valid {path.suffix[1:].upper()} file.") from None
    if found is None:
        raise UserError(
            f"{shown(path.name)} contains no settings of triplaneturbo; choose a file that it saved with"
            " them."
        )
    return parse(found) if isinstance(found, str) else from_dict(found)


def _glb(path: Path) -> object:
    """Return `asset.extras.triplaneturbo` of a GLB, of which only the JSON chunk is read."""
    with path.open("rb") as file:
        magic, version, _, length, kind = struct.unpack("<5I", file.read(20))
        if magic != _GLB or version != 2 or kind != _JSON:
            raise ValueError("no GLB")
        if length > LARGEST_GLB_JSON:
            raise UserError(
                f"The JSON of {shown(path.name)} has {length} bytes, too many for a file of triplaneturbo."
            )
        document = json.loads(file.read(length))
    value = document
    for key in ("asset", "extras", KEY):
        value = value.get(key) if isinstance(value, dict) else None
    if value is not None and len(json.dumps(value)) > LARGEST:
        raise UserError("The settings in this file are too long to be real; choose another file.")
    return value


def _obj_zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.lower().endswith(".obj")), None)
        if name is None:
            return None
        with archive.open(name) as file:
            return _comment(file, b"# ")


def _obj(path: Path) -> str | None:
    with path.open("rb") as file:
        return _comment(file, b"# ")


def _ply(path: Path) -> str | None:
    with path.open("rb") as file:
        if file.readline(5) not in (b"ply\n", b"ply\r\n"):
            raise ValueError("no PLY")
        return _comment(file, b"comment ", b"end_header")


def _comment(file: IO[bytes], mark: bytes, end: bytes | None = None) -> str | None:
    """Return the JSON in the comment of a text file's head; None if there is none."""
    for line in file.read(_HEAD).splitlines():
        if end is not None and line.startswith(end):
            return None
        start = mark + KEY.encode() + b" "
        if line.startswith(start):
            return line[len(start) :].decode("ascii", "replace")
    return None


def _usdz(path: Path) -> object:
    """Return the JSON in the customLayerData of a USDZ, which Pixar's library reads."""
    from pxr import Sdf, Tf

    if path.stat().st_size > _LARGEST_USDZ:
        raise UserError(f"{shown(path.name)} is too large for a file of triplaneturbo.")
    try:
        layer = Sdf.Layer.FindOrOpen(str(path))
    except Tf.ErrorException:
        layer = None
    if layer is None:
        raise ValueError("no USDZ")
    value = layer.customLayerData.get(KEY)
    return value if isinstance(value, str) else None


def _3mf(path: Path) -> str | None:
    """Return the JSON in the metadata of a 3MF, which precede its mesh."""
    with zipfile.ZipFile(path) as archive, archive.open(THREEMF_MODEL) as file:
        head = file.read(_HEAD).decode("utf-8", "replace")
    found = re.search(rf'<metadata name="{THREEMF_METADATA}"[^<>]*>([^<>]*)</metadata>', head)
    return unescape(found[1]) if found else None


_FINDERS: dict[str, Callable[[Path], object]] = {
    ".glb": _glb,
    ".zip": _obj_zip,
    ".obj": _obj,
    ".ply": _ply,
    ".usdz": _usdz,
    ".3mf": _3mf,
}
