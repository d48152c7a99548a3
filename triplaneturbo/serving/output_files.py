"""Where meshes go: names made safely from prompts, and files written whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.registry import suffixes, unit_of
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.request import Request, shown
from triplaneturbo.serving.file_stems import distinct, safe_stem

if TYPE_CHECKING:
    from triplaneturbo.mesh.mesh import Mesh
    from triplaneturbo.serving.engine import Engine

FORMATS = suffixes()
OBJ_IS_A_ZIP = "an OBJ comes as a zip with its material and its texture"
DEFAULT_FOLDER = Path("outputs")


@dataclass(frozen=True)
class OutputJob:
    """One mesh to make and where its files go.

    Attributes:
        request: the mesh.
        paths: its files, by format.
        key: what the mesh depends on, where its file's name does not tell; else "".
    """

    request: Request
    paths: dict[str, Path]
    key: str = ""


def plan(
    requests: list[Request],
    model: str,
    output: str | None,
    formats: str | None,
    names: Sequence[str] | None = None,
) -> list[OutputJob]:
    """Give each request its files; `output` is a folder, or a file whose suffix is a format's.

    A file for several requests becomes name-1.glb, name-2.glb, ...; in a folder names are made from prompts.

    Args:
        requests: what to make.
        model: what else the meshes depend on.
        output: the folder or the file; None: the default folder.
        formats: with commas between; None: that of the file, or GLB.
        names: in a folder, what each request's files are called, as safely as need be; "": by the prompt.

    Raises:
        UserError: the output or the formats cannot be.
    """
    wanted = formats_of(formats) if formats is not None else None
    if output is not None and (not output.strip() or "\0" in output):
        raise UserError("The output's name is blank; give a file such as mushroom.glb or a folder.")
    path = DEFAULT_FOLDER if output is None else Path(os.path.expanduser(output))
    keys = [""] * len(requests)
    if output is None or output.endswith(("/", os.sep)) or os.path.isdir(path):
        made = [safe_name(request, model) for request in requests]
        given = [safe_stem(name) for name in names or [""] * len(requests)]
        keys = [key if name else "" for key, name in zip(made, given, strict=True)]
        stems = [
            path / stem for stem in distinct([name or own for own, name in zip(made, given, strict=True)])
        ]
        wanted = wanted or ["glb"]
    elif path.name.lower() in FORMATS.values():
        raise UserError(f"The output {shown(output)} has no name before its ending; give one.")
    elif path.suffix.lower() == ".obj":
        raise UserError(f"The output {shown(output)} should end in .zip: {OBJ_IS_A_ZIP}.")
    else:
        own = next((name for name, suffix in FORMATS.items() if suffix == path.suffix.lower()), None)
        if own is None and wanted is None:
            raise UserError(
                f"The output {shown(output)} should end in {', '.join(FORMATS.values())}"
                " or, to be a folder, in /."
            )
        wanted = wanted or [own or "glb"]
        if own is not None and own not in wanted:
            raise UserError(f"The output {shown(output)} is not of the format {' or '.join(wanted)}.")
        stem = path.with_suffix("") if own else path
        width = len(str(len(requests)))
        stems = [
            stem if len(requests) == 1 else stem.with_name(f"{stem.name}-{number:0{width}}")
            for number in range(1, len(requests) + 1)
        ]
    jobs = [
        OutputJob(request, {name: stem.with_name(stem.name + FORMATS[name]) for name in wanted}, key)
        for request, stem, key in zip(requests, stems, keys, strict=True)
    ]
    for target in {path for job in jobs for path in job.paths.values()}:
        _check_target(target)
    return jobs


def safe_name(request: Request, model: str) -> str:
    """A file name for a request, without suffix: words of the prompt, the seed, and eight digits of a hash.

    Whatever the prompt holds, the name has only a-z, 0-9 and -, and two requests that differ in anything
    have different ones.
    """
    plain = unicodedata.normalize("NFKD", request.prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].rstrip("-")
    told = asdict(request)
    if not request.variation_path:  # names from before there were paths stay as they were
        del told["variation_path"]
    everything = json.dumps({**told, "model": model}, sort_keys=True)
    return f"{words or 'mesh'}-{request.seed}-{hashlib.sha256(everything.encode()).hexdigest()[:8]}"


def write(
    engine: Engine, mesh: Mesh, paths: dict[str, Path], placement: Placement = AS_MODELLED
) -> list[dict[str, Any]]:
    """Write a mesh in each format, each file whole, and describe the files: path, unit, bytes, sha256.

    A link is followed, as by any program that writes.

    Raises:
        UserError: a file cannot be written.
    """
    from triplaneturbo.utils.atomic_files import write_whole

    files = []
    for name, path in paths.items():
        data = engine.encode(mesh, name, path.stem, placement)
        write_whole(os.path.realpath(path) if path.is_symlink() else path, data)
        digest = hashlib.sha256(data).hexdigest()
        unit = unit_of(name, placement)
        files.append({"path": str(path), "unit": unit, "bytes": len(data), "sha256": digest})
    return files


def formats_of(text: str) -> list[str]:
    """The formats that are named in a text with commas between.

    Raises:
        UserError: there is no such format.
    """
    names = [name.strip().lower().lstrip(".") for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise UserError(f"There is no format {shown(name)}; use {', '.join(FORMATS)}.")
    return list(dict.fromkeys(names))


def _check_target(path: Path) -> None:
    """Say now what would otherwise fail after the mesh is made."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{shown(str(path))} is there and is no file; give another name.")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UserError(f"Cannot write {shown(str(path))}: {error.strerror}; give another name.") from None
    absolute = path.absolute()
    folder = next((parent for parent in absolute.parents if os.path.exists(parent)), absolute.parent)
    if not os.path.exists(folder):  # on a drive of Windows that is missing
        raise UserError(f"Cannot write {shown(str(path))}: the drive is not found; choose another folder.")
    if not folder.is_dir():
        raise UserError(
            f"Cannot write {shown(str(path))}: {shown(str(folder))} is a file; give another name."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"Cannot write in {shown(str(folder))}: no permission; choose another folder.")
