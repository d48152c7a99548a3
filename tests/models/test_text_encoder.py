"""Prompts that are longer than the text model reads."""

from __future__ import annotations

import subprocess
import sys

from tests.helpers.paths import ROOT
from triplaneturbo.models.catalog import SMALL


def test_long_prompt_logs_nothing() -> None:
    """In a process of its own: transformers logs it once in a process, past what a test can capture."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom triplaneturbo.models.weights import load_model\n"
        "text = load_model(Path(sys.argv[1])).text\n"
        "print(text.truncated_text('a red mushroom'))\n"
        "print(len(text.truncated_text('a red mushroom and a blue duck, ' * 30)) > 100)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(SMALL)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("\nTrue\n", "")
