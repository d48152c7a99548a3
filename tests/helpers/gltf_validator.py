"""Khronos' glTF validator (npm package gltf-validator, run by node) for any test that makes a GLB.

Installed by `npm ci --prefix tests`; where node or the package is missing the test is skipped and says so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.helpers.pace import patience
from tests.helpers.paths import ROOT

FOLDER = ROOT / "tests"

_PROGRAM = """
const validator = require('gltf-validator');
const bytes = new Uint8Array(require('fs').readFileSync(0));
validator.validateBytes(bytes, {maxIssues: 100}).then(
    report => process.stdout.write(JSON.stringify(report)),
    error => { process.stderr.write(String(error)); process.exit(1); });
"""


def validate(glb: bytes) -> dict[str, Any]:
    """The validator's report; skips the running test where the validator is not installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed (apt install nodejs npm), so Khronos' glTF validator cannot run")
    if not (FOLDER / "node_modules" / "gltf-validator").is_dir():
        pytest.skip("the glTF validator is not installed: run npm ci --prefix tests")
    done = subprocess.run(
        [node, "-e", _PROGRAM], input=glb, capture_output=True, cwd=FOLDER, timeout=patience(120)
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def assert_valid_glb(glb: bytes) -> list[str]:
    """Fail unless the validator finds no error and no warning; returns the codes of its infos and hints."""
    issues = validate(glb)["issues"]
    assert not issues["truncated"]
    bad = [message for message in issues["messages"] if message["severity"] < 2]
    assert issues["numErrors"] == 0, bad
    assert issues["numWarnings"] == 0, bad
    return [message["code"] for message in issues["messages"]]
