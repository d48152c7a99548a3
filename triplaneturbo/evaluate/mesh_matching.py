"""Which mesh file of another program belongs to which prompt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from triplaneturbo.errors import UserError

SUFFIXES = (".glb", ".obj", ".ply")
_ONLY_FILE_STEMS = {"mesh", "model", "export", "object"}


def normalized(name: str) -> str:
    """Return a name in lower case with each run of other characters than letters and digits as "-"."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\W_]+", "-", text).strip("-")


def match_files(folder: Path, prompts: Sequence[str]) -> tuple[dict[str, Path], list[Path]]:
    """Match the mesh files of a folder with prompts.

    A file is named after its prompt ("a red mushroom.glb", "a_red_mushroom.obj"), or is the only mesh of a
    folder that is ("a_red_mushroom/model.obj"). Letters and digits count, in upper or lower case.

    Returns:
        the file of each prompt that has one, in the order of the prompts, and the files without a prompt.

    Raises:
        UserError: the folder is unreadable, holds no mesh or none of a prompt, or two files or two prompts
            have the same name.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; name a folder of meshes.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise UserError(f"{folder} contains no mesh; put {', '.join(SUFFIXES)} files into it.")
    by_name: dict[str, str] = {}
    for prompt in prompts:
        other = by_name.setdefault(normalized(prompt), prompt)
        if other != prompt:
            raise UserError(
                f'The prompts "{other}" and "{prompt}" have the same file name; remove one of them.'
            )
    found: dict[str, Path] = {}
    unmatched: list[Path] = []
    for path in files:
        own_name = path.stem.casefold() not in _ONLY_FILE_STEMS or path.parent == folder
        owner = by_name.get(normalized(path.stem)) if own_name else None
        if owner is None and path.parent != folder:
            owner = by_name.get(normalized(path.parent.name))
        if owner is None:
            unmatched.append(path)
        elif owner in found:
            raise UserError(f'Both {found[owner]} and {path} belong to "{owner}"; remove one of them.')
        else:
            found[owner] = path
    if not found:
        raise UserError(
            f"No mesh in {folder} is named after a prompt: {files[0].name}, for example, is none; rename the"
            " files to PROMPT.glb."
        )
    return {prompt: found[prompt] for prompt in prompts if prompt in found}, unmatched
