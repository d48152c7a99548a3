"""Fixtures of the toy world's training tests: small view caches and previews."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from triplaneturbo.toyworld.scene import view_cache
from triplaneturbo.toyworld.training import train as train_module


@pytest.fixture(scope="session")
def apple_views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A view cache of apples in which all instances of a shape look like the first.

    Rendered in this process: the workers of `make_view_cache` would import everything again.
    """
    folder, threads = tmp_path_factory.mktemp("pool"), torch.get_num_threads()
    draw, drawn = view_cache.draw_views, {}

    def first(thing: str, shape: str, support: str, index: int, cameras: Any) -> np.ndarray:
        if shape not in drawn:
            drawn[shape] = draw(thing, shape, support, 0, cameras)
        return drawn[shape]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_cache, "draw_views", first)
        view_cache._render(folder, ("apple", ""))
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def few_previews() -> Iterator[None]:
    """Previews with half as many captions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "preview_captions", partial(train_module.preview_captions, 6))
        yield
