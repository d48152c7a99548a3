"""Findings of the doctor command."""

from __future__ import annotations

from typing import NamedTuple

from triplaneturbo.errors import UserError


class Finding(NamedTuple):
    """One line of the report: what was checked, the result, and how to fix a problem ("": no problem)."""

    what: str
    found: str
    remedy: str = ""


def finding_from_error(what: str, error: UserError) -> Finding:
    """Convert an error to a finding; the part of its message after "; " says how to fix it."""
    found, _, remedy = str(error).rstrip(".").partition("; ")
    return Finding(what, found, remedy)
