"""The view cache on disk: rendered once, reused, rendered again when a class changes."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from triplaneturbo.errors import UserError
from triplaneturbo.toyworld.scene import view_cache as view_cache_module
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.solids import SHAPES, solid_of
from triplaneturbo.toyworld.scene.view_cache import (
    AXES,
    NOTHING_CODE,
    PIXEL,
    RIGS,
    VIEWS,
    ViewCache,
    cache_cameras,
    make_view_cache,
)
from triplaneturbo.toyworld.scene.view_renderer import NOTHING, see

SIDE, COUNT = 16, 2
KEYS = [("box", ""), ("apple", "box")]


class Here(ProcessPoolExecutor):
    """Renders in this process, where tests can patch the toy world."""

    def submit(self, fn: Any, /, *arguments: Any, **_: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*arguments))
        except UserError as error:
            future.set_exception(error)
        return future


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_cache_module, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(view_cache_module, "SIZE", SIDE)
    monkeypatch.setattr(view_cache_module, "INSTANCES", COUNT)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


def test_cameras_are_rigs_of_four_and_three_axis_views() -> None:
    cameras = cache_cameras()
    assert len(cameras) == RIGS * VIEWS + AXES
    eyes = cameras.positions
    azimuth = torch.atan2(eyes[:, 1], eyes[:, 0]).rad2deg()[: RIGS * VIEWS].view(RIGS, VIEWS)
    steps = (azimuth.diff(dim=1) + 360) % 360
    torch.testing.assert_close(steps, torch.full_like(steps, 90), atol=1e-3, rtol=0)
    rigs = eyes[: RIGS * VIEWS].view(RIGS, VIEWS, 3)
    assert (rigs.norm(dim=2).diff(dim=1).abs() < 1e-5).all()
    assert (rigs[..., 2].diff(dim=1).abs() < 1e-5).all()
    torch.testing.assert_close(eyes[-AXES:], 6 * torch.eye(3), atol=1e-5, rtol=0)
    # Every camera sees the whole sphere, so no class is cropped.
    middle = cameras.positions.norm(dim=1)
    assert (torch.asin(0.8 / middle) < cameras.fovy / 2).all()


def test_cache_is_reused_until_a_class_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pool"
    said: list[str] = []
    with pytest.raises(UserError, match="has no views of"):
        ViewCache(folder, KEYS)
    make_view_cache(folder, KEYS, said.append)
    assert [line.split(":")[0] for line in said] == ["rendered 1 of 2", "rendered 2 of 2"]
    assert {line.split(": ")[1] for line in said} == {"box", "apple on box"}
    files = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(files) == 2
    make_view_cache(folder, KEYS, said.append)
    assert len(said) == 2
    assert files == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    box = OBJECT_CLASSES["box"]
    other = replace(box, build=lambda rng: box.build(rng).scaled(0.5))
    monkeypatch.setitem(OBJECT_CLASSES, "box", other)
    with pytest.raises(UserError, match="has no views of"):
        ViewCache(folder, KEYS)
    make_view_cache(folder, KEYS, said.append)
    assert len(said) == 4  # the box, and what stands on it
    assert len(list(folder.iterdir())) == 4
    ViewCache(folder, KEYS)


def test_cached_pixels_match_the_cameras(tmp_path: Path) -> None:
    make_view_cache(tmp_path, KEYS, lambda _: None)
    view_cache = ViewCache(tmp_path, KEYS)
    cameras = cache_cameras()
    for thing, shape, support in (("box", "flat", ""), ("apple", "", "box")):
        pixels = view_cache.pixels(thing, shape, support, slice(4, 8))
        assert pixels.shape == (COUNT, 4, SIDE, SIDE)
        assert pixels.dtype == PIXEL
        views = see(solid_of(thing, shape, support, 1), cameras[4:8], SIDE)
        nothing = views.paint == NOTHING
        assert nothing.any()
        code = pixels[1]["code"]
        np.testing.assert_array_equal(code & 15, np.where(nothing, NOTHING_CODE, views.paint))
        np.testing.assert_array_equal(code >> 4, np.where(nothing, 0, views.pattern))
        np.testing.assert_array_equal(pixels[1]["depth"], views.depth)
        np.testing.assert_array_equal(pixels[1]["normal"], views.normal)
    shapes = [view_cache.pixels("box", shape, "", [0])["code"] for shape in SHAPES]
    assert all(not np.array_equal(shapes[0], other) for other in shapes[1:])


def test_unwritable_cache_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Cannot write"):
        make_view_cache(tmp_path / "file" / "pool", KEYS[:1], lambda _: None)


def test_failure_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("triplaneturbo.utils.atomic_files.os.fsync", fail)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        make_view_cache(tmp_path, KEYS[:1], lambda _: None)
    assert list(tmp_path.iterdir()) == []
