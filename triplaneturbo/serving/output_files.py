"""Output files: planning their paths, safe names from prompts, and atomic writes."""

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
from triplaneturbo.request import Request, shown
from triplaneturbo.serving.file_options import DEFAULT_FILES, FileOptions
from triplaneturbo.serving.file_stems import safe_stem, unique_stems

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Result
    from triplaneturbo.serving.engine import Engine

FORMATS = suffixes()
OBJ_IS_A_ZIP = "an OBJ comes as a zip with its material and its texture"
DEFAULT_FOLDER = Path("outputs")


@dataclass(frozen=True)
class OutputJob:
    """A request and the paths of its output files.

    Attributes:
        request: the request.
        paths: paths of its files, by format.
        key: hash of everything that determines the mesh, if the file name does not contain it; otherwise "".
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
    """Assign output files to each request.

    With several requests, a file name.glb becomes name-1.glb, name-2.glb, ...; in a folder, files are named
    after their prompts.

    Args:
        requests: the requests.
        model: identifies everything else that determines the meshes.
        output: a folder, or a file whose suffix is that of a format; None: the default folder.
        formats: comma-separated formats; None: that of the file, or GLB.
        names: names of each request's files in a folder, made safe if necessary; "": after the prompt.

    Raises:
        UserError: the output or a format is invalid.
    """
    wanted = formats_of(formats) if formats is not None else None
    if output is not None and (not output.strip() or "\0" in output):
        raise UserError("The output path is empty; use a file such as mushroom.glb, or a folder.")
    path = DEFAULT_FOLDER if output is None else Path(os.path.expanduser(output))
    keys = [""] * len(requests)
    if output is None or output.endswith(("/", os.sep)) or os.path.isdir(path):
        made = [safe_name(request, model) for request in requests]
        given = [safe_stem(name) for name in names or [""] * len(requests)]
        keys = [key if name else "" for key, name in zip(made, given, strict=True)]
        stems = [
            path / stem for stem in unique_stems([name or own for own, name in zip(made, given, strict=True)])
        ]
        wanted = wanted or ["glb"]
    elif path.name.lower() in FORMATS.values():
        raise UserError(f"Invalid output {shown(output)}: the file name is only a suffix; add a name.")
    elif path.suffix.lower() == ".obj":
        raise UserError(f"Invalid output {shown(output)}: use the suffix .zip, as {OBJ_IS_A_ZIP}.")
    else:
        own = next((name for name, suffix in FORMATS.items() if suffix == path.suffix.lower()), None)
        if own is None and wanted is None:
            raise UserError(
                f"Unknown suffix of output {shown(output)}; use {', '.join(FORMATS.values())}, or end a"
                " folder's name with /."
            )
        wanted = wanted or [own or "glb"]
        if own is not None and own not in wanted:
            raise UserError(
                f"The suffix of output {shown(output)} does not match --format {','.join(wanted)}; change"
                " one of them."
            )
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
    """Return a file stem for a request: words of the prompt, the seed, and eight digits of a hash.

    The stem contains only a-z, 0-9 and "-", whatever the prompt; requests that differ in any field have
    different stems.
    """
    plain = unicodedata.normalize("NFKD", request.prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].rstrip("-")
    told = asdict(request)
    for name, default in (("variation_path", ""), ("look", ""), ("keep_shape", False), ("lods", 1)):
        if told[name] == default:  # keep the names from before this field existed
            del told[name]
    everything = json.dumps({**told, "model": model}, sort_keys=True)
    return f"{words or 'mesh'}-{request.seed}-{hashlib.sha256(everything.encode()).hexdigest()[:8]}"


def write(
    engine: Engine, result: Result, paths: dict[str, Path], options: FileOptions = DEFAULT_FILES
) -> list[dict[str, Any]]:
    """Write the mesh of a result in each format, atomically; describe the files: path, unit, bytes, sha256,
    and a note if its images were reduced.

    A symbolic link is followed.

    Raises:
        UserError: a file cannot be written.
    """
    from triplaneturbo.utils.atomic_files import write_atomically

    files = []
    for name, path in paths.items():
        data, note = engine.encode(result, name, path.stem, options)
        write_atomically(os.path.realpath(path) if path.is_symlink() else path, data)
        files.append(_described(path, unit_of(name, options.placement), data, note))
    return files


def write_levels(
    engine: Engine, result: Result, path: Path, options: FileOptions = DEFAULT_FILES
) -> list[dict[str, Any]]:
    """Write each level of detail as NAME-LOD0.glb, NAME-LOD1.glb, ...; describe the files, as `write` does.

    Args:
        path: a file of the result, whose folder and name are used.

    Raises:
        UserError: a file cannot be written, or its geometry alone exceeds the size limit.
    """
    from triplaneturbo.utils.atomic_files import write_atomically

    files = []
    for number, (data, note) in enumerate(engine.encode_levels(result, options)):
        target = write_atomically(path.with_name(f"{path.stem}-LOD{number}.glb"), data)
        files.append(_described(target, unit_of("glb", options.placement), data, note))
    return files


def _described(path: Path, unit: str, data: bytes, note: str) -> dict[str, Any]:
    """Return the JSON fields of a file."""
    digest = hashlib.sha256(data).hexdigest()
    file = {"path": str(path), "unit": unit, "bytes": len(data), "sha256": digest}
    return file | ({"note": note} if note else {})


def formats_of(text: str) -> list[str]:
    """Parse comma-separated formats.

    Raises:
        UserError: a format is unknown.
    """
    names = [name.strip().lower().lstrip(".") for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise UserError(f"Unknown format {shown(name)}; use {', '.join(FORMATS)}.")
    return list(dict.fromkeys(names))


def _check_target(path: Path) -> None:
    """Raise UserError if a file cannot be written, before the mesh is generated."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{shown(str(path))} exists and is not a regular file; use another name.")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UserError(f"Cannot write {shown(str(path))}: {error.strerror}; use another name.") from None
    absolute = path.absolute()
    folder = next((parent for parent in absolute.parents if os.path.exists(parent)), absolute.parent)
    if not os.path.exists(folder):  # on a drive of Windows that is missing
        raise UserError(f"Cannot write {shown(str(path))}: the drive is not found; choose another folder.")
    if not folder.is_dir():
        raise UserError(f"Cannot write {shown(str(path))}: {shown(str(folder))} is a file; use another name.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"Cannot write to {shown(str(folder))}: permission denied; choose another folder.")
