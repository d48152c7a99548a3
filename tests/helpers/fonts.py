"""Environment for Chromium with the fonts of one family only."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = {"Noto Sans": "fonts-noto-core", "DejaVu Sans": "fonts-dejavu-core"}  # of Debian

# Debian's default: with slight hinting, glyph widths are fractions of a pixel; without, whole pixels.
_CONFIG = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>{folder}/fonts</dir>
  <cachedir>{folder}/cache</cachedir>
  <match target="pattern"><edit name="hintstyle" mode="append"><const>hintslight</const></edit></match>
</fontconfig>
"""


def only(family: str, folder: Path) -> dict[str, str]:
    """Return the environment of a browser that finds only one font family; skip the test if it is missing.

    Args:
        folder: an empty folder for the configuration, the fonts and their cache.
    """
    if shutil.which("fc-list") is None:
        pytest.skip("fc-list is missing: apt install fontconfig")
    listed = subprocess.run(
        ["fc-list", f":family={family}", "--format=%{file}\n"], capture_output=True, text=True, check=True
    )
    files = [Path(line) for line in listed.stdout.splitlines()]
    if not files:
        pytest.skip(f"no font of the family {family}: apt install {PACKAGES[family]}")
    (folder / "fonts").mkdir()
    for file in files:
        (folder / "fonts" / file.name).symlink_to(file)
    config = folder / "fonts.conf"
    config.write_text(_CONFIG.format(folder=folder))
    return {"FONTCONFIG_FILE": str(config)}
