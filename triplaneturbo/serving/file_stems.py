"""File names of a batch whose lines have names: harmless on any system, and each only once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_MOST_BYTES = 120
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}


def safe_stem(name: str) -> str:
    """The name of a file, without suffix, for what somebody called `name`; "" if nothing of it can be used.

    It has letters and digits of any script, "-", "_" and "." alone, begins and ends with none of "-" and ".",
    is no device's name on Windows, and has at most 120 bytes.
    """
    plain = unicodedata.normalize("NFC", name.encode("utf-8", "ignore").decode())
    stem = re.sub(r"[^\w.-]+", "_", plain).lstrip("-._")
    stem = stem.encode()[:_MOST_BYTES].decode(errors="ignore").rstrip("-._")
    return f"_{stem}" if stem.partition(".")[0].casefold() in _DEVICES else stem


def distinct(stems: Sequence[str]) -> list[str]:
    """The stems, numbered where a file system that ignores case would take one for an earlier one."""
    used: dict[str, int] = {}  # how often each stem was asked for
    found = []
    for stem in stems:
        free = stem
        while _folded(free) in used:
            used[_folded(stem)] += 1
            free = f"{stem}-{used[_folded(stem)]}"
        used[_folded(free)] = 1
        found.append(free)
    return found


def _folded(stem: str) -> str:
    return unicodedata.normalize("NFKC", stem.casefold())
