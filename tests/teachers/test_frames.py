"""Coordinate frames of the teachers: our front is at their azimuth 0; see frames.png."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.frames import PICTURE, draw, frames


def test_front_is_minus_y_of_the_teachers() -> None:
    actual = frames()
    for name in ("MVDream", "RichDreamer"):
        x, y, z = actual[name].T.tolist()
        assert y == pytest.approx([-1, 0, 0], abs=1e-5)  # so -y is our +x, the front
        assert x == pytest.approx([0, 1, 0], abs=1e-5)
        assert z == pytest.approx([0, 0, 1], abs=1e-5)
    torch.testing.assert_close(actual["MVDream, released trainer"], torch.eye(3), atol=1e-5, rtol=0)


def test_documented_figure_shows_the_frames() -> None:
    kept = np.asarray(Image.open(PICTURE).convert("RGB")).astype(float)
    now = draw().astype(float)
    assert kept.shape == now.shape
    assert np.abs(kept - now).mean() < 1.0  # fonts may differ a little
