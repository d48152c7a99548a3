"""Safe and unique file stems from user-provided names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_MOST_BYTES = 120
_RESERVED_NAMES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}


def safe_stem(name: str) -> str:
    """Return a file stem for a user-provided name; "" if it has no usable character.

    The stem contains only letters and digits of any script, "-", "_" and ".", neither starts nor ends with
    "-" or ".", is not a device name on Windows, and has at most 120 bytes.
    """
    plain = unicodedata.normalize("NFC", name.encode("utf-8", "ignore").decode())
    stem = re.sub(r"[^\w.-]+", "_", plain).lstrip("-._")
    stem = stem.encode()[:_MOST_BYTES].decode(errors="ignore").rstrip("-._")
    return f"_{stem}" if stem.partition(".")[0].casefold() in _RESERVED_NAMES else stem


def unique_stems(stems: Sequence[str]) -> list[str]:
    """Return the stems, with a number appended to duplicates; upper and lower case count as equal."""
    used: dict[str, int] = {}  # number of times each stem occurred
    unique = []
    for stem in stems:
        free = stem
        while _normalized(free) in used:
            used[_normalized(stem)] += 1
            free = f"{stem}-{used[_normalized(stem)]}"
        used[_normalized(free)] = 1
        unique.append(free)
    return unique


def _normalized(stem: str) -> str:
    return unicodedata.normalize("NFKC", stem.casefold())
