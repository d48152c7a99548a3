"""download released weights for offline use

They are stored in the hub's cache (see HF_HOME). Interrupted downloads are resumed.
"""

from __future__ import annotations

import argparse

from triplaneturbo.cli import DONE
from triplaneturbo.models.hub import (
    ADAPTER,
    BASE,
    MVDREAM,
    TEXT_1_5,
    Release,
    cache_folder,
    cached,
    fetch,
    plan,
)
from triplaneturbo.models.remote_file import RICHDREAMER, fetch_url, size_of_url, url_file

WHATS = {"full": (ADAPTER, BASE), "teachers": (MVDREAM, TEXT_1_5)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--what",
        choices=("full", "teachers", "all"),
        default="full",
        help="the full model (the default), the teachers that train it, or both",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the missing files and their sizes, then download them."""
    whats = tuple(WHATS) if arguments.what == "all" else (arguments.what,)
    releases = [release for what in whats for release in WHATS[what]]
    missing = [release for release in releases if cached(release) is None]
    with_teachers = "teachers" in whats and not url_file(RICHDREAMER).is_file()
    total = sum(_announce(release) for release in missing)
    if with_teachers:
        size = size_of_url(RICHDREAMER)
        print(f"{_gigabytes(size):>9}  {RICHDREAMER.name}, from {RICHDREAMER.url}")
        total += size or 0
    if not missing and not with_teachers:
        print(f"Already downloaded to {cache_folder()}.")
        return DONE
    print(f"{_gigabytes(total):>9}  in total, to {cache_folder()}", flush=True)
    for release in missing:
        fetch(release)
    if with_teachers:
        fetch_url(RICHDREAMER)
    print("Done.")
    return DONE


def _announce(release: Release) -> int:
    """Print the size of the missing files of a release, and return it in bytes."""
    planned = plan(release)
    size = sum(item.size or 0 for item in planned if not item.here)
    source = planned[0].source
    print(f"{_gigabytes(size):>9}  {release.name}, from {source.repo} at {source.revision[:12]}")
    return size


def _gigabytes(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
