"""Encodings of the textures in files, and checks of the options on them. Imports nothing heavy."""

from __future__ import annotations

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

# "webp" needs a program that knows glTF's EXT_texture_webp; "webp+png" has PNG images for the others. USDZ
# has PNG images in place of WebP, OBJ always.
TEXTURE_FORMATS = ("png", "jpeg", "webp", "webp+png")


def check_texture_format(name: object) -> None:
    """Raise UserError if a texture format is unknown."""
    if name not in TEXTURE_FORMATS:
        raise UserError(f"Invalid texture format {shown(name)}; choose one of {', '.join(TEXTURE_FORMATS)}.")


def check_max_bytes(value: object) -> None:
    """Raise UserError if a size limit of files is neither None nor a positive number of bytes."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"Invalid size limit {shown(value)}; use a number of bytes.")
