"""Fast commands in this process: a small request, and a model that is loaded once."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from triplaneturbo.serving import engine

QUICK = ["--model", "small", "--device", "cpu", "--resolution", "24", "--texture-size", "512", "--steps", "2"]

load = engine._load
# To be put in the place of `engine._load`: commands change nothing in a model, and loading takes most of
# their time.
load_once = functools.cache(load)


def make_small(patch: pytest.MonkeyPatch, maker: engine.Engine) -> None:
    """Make an engine generate small meshes, whatever the requested sizes."""
    submit = maker.submit
    small = {"resolution": 24, "texture_size": 512, "steps": 2}
    patch.setattr(
        maker, "submit", lambda *asked, **how: submit(*(replace(one, **small) for one in asked), **how)
    )
