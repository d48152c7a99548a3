"""Plots of training logs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from triplaneturbo.toyworld.training.curves import curves, log_line


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_log_lines_are_plotted(tmp_path: Path) -> None:
    path = tmp_path / "stage.jsonl"
    for step, loss in ((10, 0.5), (20, 0.3), (30, 0.25)):
        log_line(path, {"step": step, "loss": loss, "speed": 1.0})
    assert json.loads(path.read_text().splitlines()[1]) == {"step": 20, "loss": 0.3, "speed": 1.0}
    drawn = (tmp_path / "stage-curves.png").read_bytes()
    assert drawn == curves(path)
    blue = (pixels(drawn)[..., 2].astype(int) - pixels(drawn)[..., 0]) > 60  # the lines
    middle = blue.shape[1] // 2
    assert blue[:, :middle].any()
    assert blue[:, middle:].any()


def test_repeated_iterations_use_the_later_lines(tmp_path: Path) -> None:
    path, again = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for step, loss in ((10, 0.5), (20, 9.0), (30, 9.0), (20, 0.3), (30, 0.25)):
        log_line(path, {"step": step, "loss": loss})
    for step, loss in ((10, 0.5), (20, 0.3), (30, 0.25)):
        log_line(again, {"step": step, "loss": loss})
    assert np.array_equal(pixels(curves(path)), pixels(curves(again)))
