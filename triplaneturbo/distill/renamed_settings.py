"""Settings whose names have changed since files with them were written. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {"rate": "learning_rate", "scored": "scored_steps", "begun": "schedule_offset"}


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a file of any version under today's names."""
    return {RENAMED.get(name, name): value for name, value in settings.items()}
