"""What doctor finds."""

from __future__ import annotations

from typing import NamedTuple

from triplaneturbo.errors import UserError


class Finding(NamedTuple):
    """One line: what was looked at, what was found, and what to do if that is not well."""

    what: str
    found: str
    remedy: str = ""


def finding_from_error(what: str, error: UserError) -> Finding:
    """Return an error, whose sentence ends in what to do, as a finding."""
    found, _, remedy = str(error).rstrip(".").partition("; ")
    return Finding(what, found, remedy)
