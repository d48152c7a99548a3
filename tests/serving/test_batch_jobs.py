"""Batch jobs of the page: their requests and outcomes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trimesh
from PIL import Image

from triplaneturbo.errors import EmptySurfaceError, UserError
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.request import SEED_LIMIT, Request
from triplaneturbo.serving.batch_jobs import BatchProgress, follow_batch, like, previews, seeds, series
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.file_options import FileOptions
from triplaneturbo.serving.jobs import MeshReady, Stopped
from triplaneturbo.serving.sessions import Session

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("small", device="cpu") as engine:
        yield engine


def test_seeds_wrap_around() -> None:
    request = Request("a cup", seed=SEED_LIMIT - 1)
    assert [one.seed for one in seeds(request, 4)] == [SEED_LIMIT - 1, SEED_LIMIT, 0, 1]
    assert all(one.checked() for one in seeds(request, 4))


def test_variations_keep_the_seed() -> None:
    alike = like(Request("a cup", seed=5), 4, 0.2)
    assert {(one.seed, one.variation) for one in alike} == {(5, 0.2)}
    assert len({one.variation_seed for one in alike}) == 4
    assert alike != like(Request("a cup", seed=5), 4, 0.2)  # drawn anew each time


def test_variations_of_a_variation_extend_its_path() -> None:
    second = like(like(Request("a cup", seed=5), 1, 0.2)[0], 2, 0.1)
    third = like(second[1], 1, 0.3)[0]
    assert third.seed == 5
    assert [strength for _, strength in third.turns()] == [0.2, 0.1, 0.3]
    assert third.turns()[:2] == second[1].turns()
    assert second[0].turns()[0] == second[1].turns()[0]


def test_series_blends_between_two_prompts() -> None:
    request = Request("a cup", blend="a hat", blend_weight=0.3)
    assert [one.blend_weight for one in series(request, 5)] == [0, 0.25, 0.5, 0.75, 1]
    with pytest.raises(UserError, match="second prompt is missing"):
        series(Request("a cup"), 5)
    for count in (1, 17, 2.5, True):
        with pytest.raises(UserError, match="use 2 to 16"):
            series(request, count)


def test_every_variant_has_a_mesh_and_a_turntable(engine: Engine, tmp_path: Path) -> None:
    requests = previews(seeds(Request("a red mushroom", texture_size=2048, steps=2), 3))
    events = list(follow_batch(engine, Session(tmp_path), requests))
    several = [event for event in events if isinstance(event, BatchProgress)]
    counts = [len(event.made) for event in several]
    assert counts == sorted(set(counts))  # two that end at the same time may be reported together
    assert counts[-1] == 3
    assert [event.complete for event in several] == [count == 3 for count in counts]
    assert events[-1] is several[-1]  # nothing comes after it
    for request, made, picture in zip(requests, several[-1].made, several[-1].pictures, strict=True):
        assert isinstance(made, MeshReady)
        assert made.facts["seed"] == request.seed
        assert len(trimesh.load(made.files["glb"], force="mesh", process=False).faces) == made.facts["faces"]
        assert b"COLOR_0" in made.files["glb"].read_bytes()
        with Image.open(io.BytesIO(picture.read_bytes())) as turning:
            assert (turning.format, turning.size) == ("WEBP", (144, 144))
            assert turning.n_frames == 16


def test_empty_surface_does_not_stop_the_variants(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triplaneturbo import pipeline

    extract, calls = pipeline.extract, []

    def no_second(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 2:
            raise EmptySurfaceError
        return extract(*arguments)

    monkeypatch.setattr(pipeline, "extract", no_second)
    requests = previews(seeds(Request("a striped fish", steps=2), 3))
    *_, several = follow_batch(engine, Session(tmp_path), requests)
    assert [type(made) for made in several.made] == [MeshReady, Stopped, MeshReady]
    assert several.made[1] == Stopped(str(EmptySurfaceError()))
    assert b"no surface" in several.pictures[1].read_bytes()


def test_invalid_batches_are_refused_and_leave_no_file(engine: Engine, tmp_path: Path) -> None:
    (stopped,) = follow_batch(engine, Session(tmp_path), seeds(Request("  "), 2))
    assert isinstance(stopped, Stopped)
    assert "prompt is blank" in stopped.sentence
    assert not list(tmp_path.iterdir())


def test_files_have_the_given_options(engine: Engine, tmp_path: Path) -> None:
    requests = series(Request("a red mushroom", blend="a blue chair", **QUICK), 2)
    for metadata in (True, False):
        options = FileOptions(Placement(size=0.5), metadata=metadata)
        *_, last = follow_batch(engine, Session(tmp_path / str(metadata)), requests, options=options)
        assert isinstance(last, BatchProgress)
        for made in last.made:
            assert isinstance(made, MeshReady)
            assert (b"a red mushroom" in made.files["glb"].read_bytes()) == metadata
            scene = trimesh.load(made.files["glb"], force="mesh")
            assert scene.extents.max() == pytest.approx(0.5, rel=1e-5)


def test_previews_have_one_level_of_detail() -> None:
    assert [request.lods for request in previews([Request("a cup", lods=4)])] == [1]
