"""Decoding of text files: UTF-8 with or without a BOM, or UTF-16 with a BOM, as saved by Excel."""

from __future__ import annotations

import sys
from pathlib import Path

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

MOST_BYTES = 16 * 2**20
STANDARD_INPUT = "-"


def read_bytes(path: Path) -> bytes:
    """Read up to MOST_BYTES + 1 bytes of a file, or of standard input for the path "-".

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        if str(path) == STANDARD_INPUT:
            return sys.stdin.buffer.read(MOST_BYTES + 1)
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot read {shown(str(path))}: {reason}; name a file of prompts.") from None


def decode(data: bytes, name: str, too_large: str = "use fewer prompts") -> str:
    """Decode the bytes of a text file.

    Args:
        data: content of the file.
        name: name of the file in messages.
        too_large: advice in the message about files that are too large.

    Raises:
        UserError: if the file is not text, has an unknown encoding or is too large.
    """
    name = shown(name)
    if data[:4] == b"PK\x03\x04" or data[:2] == b"\x1f\x8b":
        raise UserError(f"{name} is a compressed archive, despite its name: unpack it first.")
    if len(data) > MOST_BYTES:
        raise UserError(f"{name} is larger than {MOST_BYTES >> 20} MB: {too_large}.")
    marked = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    if b"\0" in data and not marked:
        raise UserError(f"{name} contains NUL bytes, so it is not UTF-8 text: save it as UTF-8.")
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        kind = "UTF-16" if marked else "UTF-8"
        raise UserError(f"{name} is not {kind} text: save it as UTF-8 (in Excel: CSV UTF-8).") from None
    if "\0" in text:
        raise UserError(f"{name} contains NUL characters, so it is not text: save it as UTF-8.")
    return text
