"""Files of text as people have them: UTF-8 with or without a mark, or UTF-16 with one, as Excel saves it."""

from __future__ import annotations

import sys
from pathlib import Path

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

MOST_BYTES = 16 * 2**20
STANDARD_INPUT = "-"


def read_bytes(path: Path) -> bytes:
    """The first bytes of a file, or of standard input for the path "-": at most one more than MOST_BYTES.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        if str(path) == STANDARD_INPUT:
            return sys.stdin.buffer.read(MOST_BYTES + 1)
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot read {shown(str(path))}: {reason}; name a file of prompts.") from None


def decode(data: bytes, name: str, too_large: str = "give fewer prompts") -> str:
    """Decode the bytes of a text file.

    Args:
        name: of the file, for errors.
        too_large: what to do about a file that is too large, for errors.

    Raises:
        UserError: the bytes are no text, are in an encoding that cannot be told, or are too many.
    """
    name = shown(name)
    if data[:4] == b"PK\x03\x04" or data[:2] == b"\x1f\x8b":
        raise UserError(f"{name} is a packed archive, whatever its name says: unpack it first.")
    if len(data) > MOST_BYTES:
        raise UserError(f"{name} is larger than {MOST_BYTES >> 20} MB: {too_large}.")
    marked = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    if b"\0" in data and not marked:
        raise UserError(f"{name} holds NUL bytes, so it is no UTF-8 text: save it as UTF-8.")
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        kind = "UTF-16" if marked else "UTF-8"
        raise UserError(f"{name} is no {kind} text: save it as UTF-8 (in Excel: CSV UTF-8).") from None
    if "\0" in text:
        raise UserError(f"{name} holds NUL characters, so it is no text: save it as UTF-8.")
    return text
