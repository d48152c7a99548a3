"""Where meshes go: names made safely from prompts, and files written whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triplaneturbo.errors import UserError
from triplaneturbo.placement import AS_MODELLED, Placement
from triplaneturbo.request import Request, shown

if TYPE_CHECKING:
    from triplaneturbo.engine import Engine
    from triplaneturbo.mesh.mesh import Mesh

# Format -> suffix; an OBJ comes as a zip with its material and texture.
FORMATS = {"glb": ".glb", "obj": ".zip", "ply": ".ply", "stl": ".stl", "usdz": ".usdz"}
DEFAULT_FOLDER = Path("outputs")


@dataclass(frozen=True)
class Job:
    """One mesh to make and where its files go, by format."""

    request: Request
    paths: dict[str, Path]


def plan(requests: list[Request], model: str, output: str | None, formats: str | None) -> list[Job]:
    """Give each request its files; `output` is a folder, or a file whose suffix is a format's.

    A file for several requests becomes name-1.glb, name-2.glb, ...; in a folder names are made from prompts.

    Raises:
        UserError: the output or the formats cannot be.
    """
    wanted = _formats(formats) if formats is not None else None
    if output is not None and (not output.strip() or "\0" in output):
        raise UserError("The output's name is blank; give a file such as mushroom.glb or a folder.")
    path = DEFAULT_FOLDER if output is None else Path(output)
    if output is None or output.endswith(("/", os.sep)) or os.path.isdir(path):
        stems = [path / safe_name(request, model) for request in requests]
        wanted = wanted or ["glb"]
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
        Job(request, {name: stem.with_name(stem.name + FORMATS[name]) for name in wanted})
        for request, stem in zip(requests, stems, strict=True)
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
    """Write a mesh in each format, each file whole, and describe the files: path, bytes, sha256.

    Raises:
        UserError: a file cannot be written.
    """
    from triplaneturbo.files import write_whole

    files = []
    for name, path in paths.items():
        data = engine.encode(mesh, name, path.stem, placement)
        write_whole(path, data)
        files.append({"path": str(path), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    return files


def _formats(text: str) -> list[str]:
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
    folder = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    if not folder.is_dir():
        raise UserError(
            f"Cannot write {shown(str(path))}: {shown(str(folder))} is a file; give another name."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"Cannot write in {shown(str(folder))}: no permission; choose another folder.")
