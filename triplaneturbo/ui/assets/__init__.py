"""Scripts and style sheets of the page, and the loader that fills in their placeholders.

A script may hold two things that are not JavaScript's own:

    // include form_store.js    this line is replaced with the text of another file of this folder
    __NAMES__                   replaced with a value from Python, as JSON
"""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

_INCLUDE = re.compile(r"^[ \t]*// include (\S+)\n", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\b__([A-Z]+(?:_[A-Z]+)*)__\b")


def read(name: str, **values: Any) -> str:
    """Return the text of an asset with its includes and placeholders replaced.

    Args:
        name: file name in this folder.
        values: JSON-serialisable value of each placeholder, by its name in lower case: `max_bytes` is
            inserted where the file has `__MAX_BYTES__`.

    Raises:
        ValueError: a placeholder has no value, or a value has no placeholder.
    """
    text = _source(name)
    wanted = placeholders(name)
    if wanted != values.keys():
        raise ValueError(f"{name} has the placeholders {sorted(wanted)}, not {sorted(values)}.")
    return _PLACEHOLDER.sub(lambda match: json.dumps(values[match[1].lower()]), text).strip()


def placeholders(name: str) -> set[str]:
    """Return the names of an asset's placeholders, in lower case."""
    return {found.lower() for found in _PLACEHOLDER.findall(_source(name))}


def _source(name: str) -> str:
    text = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda match: _source(match[1]), text)
