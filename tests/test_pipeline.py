"""Text-to-mesh pipeline with the built-in model."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import trimesh

from triplaneturbo import pipeline as pipeline_module
from triplaneturbo.errors import EmptySurfaceError, UserError
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata
from triplaneturbo.mesh.io.gltf import to_glb
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.uv.registry import UNWRAPPERS
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.weights import Model, load_model
from triplaneturbo.pipeline import SKETCH_RESOLUTION, STAGES, Outcome, Pipeline, Progress, Result
from triplaneturbo.request import Request

KEY = torch.tensor([1.0, 3.7, 11.3], dtype=torch.float64)  # tells positions apart
QUICK = {"resolution": 32, "texture_size": 512}


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(SMALL)


@pytest.fixture
def pipeline(model: Model) -> Pipeline:
    return Pipeline(model)


@pytest.fixture
def result(pipeline: Pipeline) -> Result:
    *_, result = pipeline.stream(Request("a red mushroom", seed=3, **QUICK))
    assert isinstance(result, Result)
    return result


def test_call_returns_a_textured_mesh(pipeline: Pipeline) -> None:
    mesh = pipeline("a red mushroom", seed=3, **QUICK)
    assert mesh.vertices.dtype == torch.float32
    assert mesh.faces.dtype == torch.int64
    assert mesh.texture is not None
    assert mesh.texture.shape == (512, 512, 3)
    assert mesh.normal_map is not None
    assert mesh.normal_map.ndim == 3
    assert len(mesh.normal_map) <= 512
    assert mesh.uv is not None
    assert mesh.uv.shape == (len(mesh.vertices), 2)
    assert torch.isfinite(mesh.vertices).all()
    assert not mesh.vertices.requires_grad
    scene = trimesh.load(BytesIO(to_glb(mesh)), file_type="glb")
    assert sum(len(part.faces) for part in scene.geometry.values()) == len(mesh.faces)


def test_streamed_meshes_tell_how_they_were_generated(pipeline: Pipeline, result: Result) -> None:
    assert result.mesh.metadata == GenerationMetadata(result.request, pipeline.name)


def test_a_model_in_the_current_folder_has_the_name_of_the_folder(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert Pipeline(replace(model, folder=Path())).name == "mine"


def test_same_request_gives_the_same_bytes(pipeline: Pipeline) -> None:
    again = Pipeline(load_model(SMALL))  # nothing shared but the files
    first = to_glb(pipeline("a red mushroom", seed=3, **QUICK))
    torch.rand(5)  # the global random state has no effect
    assert to_glb(again("  a red\tmushroom ", seed=3, **QUICK)) == first
    assert to_glb(pipeline("a red mushroom", seed=4, **QUICK)) != first
    assert to_glb(pipeline("a blue chair", seed=3, **QUICK)) != first


def test_global_rng_is_unchanged(pipeline: Pipeline) -> None:
    before = torch.get_rng_state()
    pipeline("a cup", **QUICK)
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_events_cover_every_stage(pipeline: Pipeline) -> None:
    *events, result = pipeline.stream(Request("a cup", steps=3, **QUICK))
    assert isinstance(result, Result)
    assert all(isinstance(event, Progress) for event in events)
    assert list(dict.fromkeys(event.stage for event in events)) == list(STAGES)
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] < 1
    seconds = [event.seconds for event in events]
    assert seconds == sorted(seconds)
    shown = [event for event in events if event.estimate is not None]
    assert [(event.stage, event.step, event.steps) for event in shown] == [
        ("denoise", step, 3) for step in (1, 2, 3)
    ]
    side = pipeline.model.config.latent_size
    assert {tuple(event.estimate.shape) for event in shown} == {(6, 4, side, side)}
    assert list(result.seconds) == [*STAGES, "total"]
    parts = sum(result.seconds[stage] for stage in STAGES)
    assert parts <= result.seconds["total"] + 1e-6
    assert min(result.seconds.values()) >= 0


def test_stage_fractions_sum_to_one() -> None:
    assert sum(STAGES.values()) == pytest.approx(1)


@torch.no_grad()
def test_surface_matches_the_last_estimate(pipeline: Pipeline) -> None:
    """Reference: decode the last event's estimate and evaluate every node."""
    *events, result = pipeline.stream(Request("a red mushroom", seed=3, faces=None, **QUICK))
    assert isinstance(result, Result)
    estimate = [event.estimate for event in events if event.estimate is not None][-1]
    generator = pipeline.model.generator
    field = generator.field(generator.decode(estimate[None])[0])
    surface = extract(field, QUICK["resolution"], mode="dense")
    assert result.surface_faces == len(surface.faces)
    assert len(result.mesh.faces) == result.surface_faces - result.dropped.faces
    here, there = result.mesh.vertices.unique(dim=0), surface.vertices.unique(dim=0)
    if not result.dropped.components:
        torch.testing.assert_close(here, there)
    assert torch.isin(here.double() @ KEY, there.double() @ KEY).all()


def test_defaults_come_from_the_model(pipeline: Pipeline) -> None:
    request = pipeline.settle(Request("a cup"))
    assert request.steps == pipeline.model.config.steps
    assert request.resolution == pipeline.model.config.grid_resolution
    assert pipeline.settle(request) == request


def test_face_budget_is_respected(pipeline: Pipeline, result: Result) -> None:
    whole = Request("a red mushroom", seed=3, faces=None, **QUICK)
    *_, untouched = pipeline.stream(whole)
    *_, lighter = pipeline.stream(replace(whole, faces=300))
    assert isinstance(untouched, Result)
    assert isinstance(lighter, Result)
    assert len(untouched.mesh.faces) > 300
    assert len(lighter.mesh.faces) <= 330
    assert len(untouched.mesh.faces) <= untouched.surface_faces == lighter.surface_faces
    assert len(result.mesh.faces) <= result.request.faces


@pytest.mark.parametrize("changes", [{"unwrap": "xatlas"}, {"normal_map": False}, {"texture_size": 700}])
def test_texture_options_are_applied(pipeline: Pipeline, changes: dict) -> None:
    mesh = pipeline("a cup", **{**QUICK, "faces": 500, **changes})
    assert mesh.texture is not None
    assert mesh.texture.shape[0] == changes.get("texture_size", 512)
    assert (mesh.normal_map is not None) == changes.get("normal_map", True)


def test_missing_unwrap_method_is_refused_before_any_work(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(UNWRAPPERS, "uvunwrap", replace(UNWRAPPERS["uvunwrap"], package="no_such_package"))
    with pytest.raises(UserError, match="not installed"):
        pipeline.settle(Request("a cup", unwrap="uvunwrap"))


def test_unwrap_none_gives_vertex_colours(pipeline: Pipeline) -> None:
    *_, painted = pipeline.stream(Request("a cup", unwrap="none", faces=None, **QUICK))
    *_, textured = pipeline.stream(Request("a cup", faces=None, **QUICK))
    assert isinstance(painted, Result)
    assert isinstance(textured, Result)
    mesh = painted.mesh
    assert mesh.texture is mesh.uv is mesh.normal_map is None
    assert "unwrap" not in painted.seconds
    assert len(mesh.faces) == len(textured.mesh.faces)
    assert b'"COLOR_0"' in to_glb(mesh)
    assert textured.mesh.texture is not None
    middle = torch.from_numpy(textured.mesh.texture).flatten(0, 1).float().median(0).values / 255
    assert (mesh.colors.median(0).values - middle).abs().max() < 0.1


def test_truncated_prompt_is_reported(pipeline: Pipeline) -> None:
    *_, long = pipeline.stream(Request("a red mushroom " * 40, **QUICK))
    *_, short = pipeline.stream(Request("a red mushroom", **QUICK))
    assert isinstance(long, Result)
    assert isinstance(short, Result)
    assert "mushroom" in long.truncated_text
    assert short.truncated_text == ""


@pytest.fixture
def empty(model: Model) -> Iterator[Pipeline]:
    """A pipeline whose field is positive everywhere: its sphere has a negative radius."""
    fields = model.generator.heads[model.generator.active].fields
    kept = fields.config
    fields.config = replace(kept, sphere_radius=-1000.0)
    yield Pipeline(model)
    fields.config = kept


def test_empty_surface_is_an_error(empty: Pipeline) -> None:
    with pytest.raises(EmptySurfaceError, match="found no surface for this prompt; try another seed"):
        empty("a cup", **QUICK)


def test_invalid_requests_are_refused_before_any_work(pipeline: Pipeline) -> None:
    with pytest.raises(UserError):
        next(pipeline.stream(Request("  ")))
    with pytest.raises(UserError):
        pipeline("a cup", texture_size=5)


def _several(pipeline: Pipeline, requests: list[Request]) -> tuple[list[Progress], list[Outcome]]:
    events = list(pipeline.stream_all(requests))
    progress = [event for event in events if isinstance(event, Progress)]
    return progress, [event for event in events if not isinstance(event, Progress)]


def test_sequential_requests_match_single_ones(pipeline: Pipeline) -> None:
    requests = [Request("a cup", seed=seed, **QUICK) for seed in range(3)]
    progress, outcomes = _several(pipeline, requests)
    assert [to_glb(made.mesh) for made in outcomes] == [
        to_glb(pipeline("a cup", seed=seed, **QUICK)) for seed in range(3)
    ]
    fractions = [event.fraction for event in progress]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < fractions[-1] < 1


def test_batched_requests_match_single_ones_up_to_rounding(model: Model) -> None:
    requests = [
        Request("a cup", seed=1, faces=None, **QUICK),
        Request("a red mushroom", seed=2, faces=None, **QUICK),
        Request("a cup", seed=1, steps=1, faces=None, **QUICK),  # other steps: another batch
    ]
    batches: list[int] = []
    predict = model.generator.predict

    def counted(noisy: torch.Tensor, *rest: Any) -> torch.Tensor:
        batches.append(len(noisy))
        return predict(noisy, *rest)

    with patch.object(model.generator, "predict", counted):
        progress, outcomes = _several(Pipeline(model, together=True), requests)
    assert batches == [2, 2, 1]
    fractions = [event.fraction for event in progress]
    assert fractions == sorted(fractions)
    for request, made in zip(requests, outcomes, strict=True):
        *_, alone = Pipeline(model, together=False).stream(request)
        assert made.request == alone.request
        assert list(made.seconds) == list(alone.seconds)
        assert torch.equal(made.mesh.faces, alone.mesh.faces)
        torch.testing.assert_close(made.mesh.vertices, alone.mesh.vertices, atol=1e-4, rtol=0)
        difference = made.mesh.texture.astype(int) - alone.mesh.texture
        assert abs(difference).mean() < 2


@pytest.mark.parametrize("together", [False, True])
def test_empty_surface_does_not_stop_the_batch(
    model: Model, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def no_second(*arguments: Any) -> Any:
        asked.append(None)
        if len(asked) == 2:
            raise EmptySurfaceError
        return extract(*arguments)

    monkeypatch.setattr(pipeline_module, "extract", no_second)
    requests = [Request("a cup", seed=seed, **QUICK) for seed in range(3)]
    _, outcomes = _several(Pipeline(model, together=together), requests)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["EmptySurfaceError", "Result", "Result"]


def test_parallel_meshes_stop_when_the_stream_is_closed(model: Model) -> None:
    events = Pipeline(model, together=True).stream_all([Request("a cup", seed=s, **QUICK) for s in range(2)])
    before = threading.active_count()
    for event in events:
        if isinstance(event, Result):
            break
    events.close()
    assert threading.active_count() == before


def test_sketches_show_every_step(pipeline: Pipeline) -> None:
    request = Request("a red mushroom", seed=3, steps=3, **QUICK)
    *events, made = pipeline.stream(request, sketches="all")
    sketches = [event.sketch for event in events if event.sketch is not None]
    assert [event.stage for event in events if event.sketch is not None] == ["denoise", "denoise", "decode"]
    assert all(sketch.colors is not None and sketch.uv is None for sketch in sketches)
    assert (sketches[-1].bounds - made.mesh.bounds).abs().max() < 2 * 2 / 47
    (last,) = [e.sketch for e in pipeline.stream(request, sketches="last") if getattr(e, "sketch", None)]
    assert torch.equal(last.vertices, sketches[-1].vertices)
    (first,) = [e.sketch for e in pipeline.stream(request, sketches="first") if getattr(e, "sketch", None)]
    assert torch.equal(first.vertices, sketches[0].vertices)
    single = replace(request, steps=1)
    for which in ("first", "last", "all"):  # with a single step the three are the same
        (only,) = [e.sketch for e in pipeline.stream(single, sketches=which) if getattr(e, "sketch", None)]
        assert len(only.faces) > 100
    *plain, alone = pipeline.stream(request)
    assert all(event.sketch is None for event in plain)
    assert to_glb(alone.mesh) == to_glb(made.mesh)


def test_empty_step_has_no_sketch(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_coarse(field: Any, resolution: int, *rest: Any) -> Any:
        if resolution == SKETCH_RESOLUTION:
            raise EmptySurfaceError
        return extract(field, resolution, *rest)

    monkeypatch.setattr(pipeline_module, "extract", none_coarse)
    *events, made = pipeline.stream(Request("a cup", **QUICK), sketches="all")
    assert all(event.sketch is None for event in events)
    assert len(made.mesh.faces) > 100


def test_variation_interpolates_between_noises(pipeline: Pipeline) -> None:
    def noise(**settings: Any) -> torch.Tensor:
        found = []
        denoise = pipeline_module.denoise_steps

        def recorded(scheduler: Any, predict: Any, noise: torch.Tensor, steps: int) -> Iterator[torch.Tensor]:
            found.append(noise)
            return denoise(scheduler, predict, noise, steps)

        with patch.object(pipeline_module, "denoise_steps", recorded):
            pipeline("a cup", seed=1, **settings, **QUICK)
        return found[0]

    own, other = noise(), noise(variation=1, variation_seed=2)
    with patch.object(pipeline_module, "denoise_steps", side_effect=ZeroDivisionError) as denoise:
        with pytest.raises(ZeroDivisionError):
            pipeline("a cup", seed=2, **QUICK)
        torch.testing.assert_close(other, denoise.call_args.args[2])
    near, far = noise(variation=0.1, variation_seed=2), noise(variation=0.7, variation_seed=2)
    apart = [(one - own).norm() / own.norm() for one in (near, far, other)]
    assert apart == sorted(apart)
    assert 0 < apart[0] < 0.2
    assert abs(float(far.std()) - 1) < 0.1
    assert torch.equal(noise(variation=0.0, variation_seed=9), own)

    second = noise(variation=0.1, variation_seed=3, variation_path="2:0.7")
    apart = [float((second - one).norm() / own.norm()) for one in (far, own)]
    assert apart[0] == pytest.approx(2 * math.sin(0.1 * math.pi / 4), rel=0.2)  # around that variation
    assert apart[1] > 0.7  # and not around the seed's own noise
    assert abs(float(second.std()) - 1) < 0.1
    assert torch.equal(noise(variation_path="2:0.7"), far)


def test_blend_interpolates_between_prompts(pipeline: Pipeline) -> None:
    def glb(prompt: str, **settings: Any) -> bytes:
        return to_glb(pipeline(prompt, seed=1, **settings, **QUICK))

    apple, pear = glb("a red apple"), glb("a yellow pear")
    assert glb("a red apple", blend="a yellow pear", blend_weight=0) == apple
    assert glb("a red apple", blend="a yellow pear", blend_weight=1) == pear
    between = glb("a red apple", blend="a yellow pear", blend_weight=0.5)
    assert between not in (apple, pear)
    colors = [
        torch.from_numpy(pipeline("a red apple", seed=1, blend=other, blend_weight=weight, **QUICK).texture)
        for other, weight in (("", 0.0), ("a yellow pear", 0.5), ("a yellow pear", 1.0))
    ]
    green = [float(color[..., 1].double().mean()) for color in colors]
    assert green == sorted(green)


def test_look_changes_colours_and_kept_shape_does_not_change(pipeline: Pipeline) -> None:
    quick = {"resolution": 32, "texture_size": 512, "seed": 3}
    plain = pipeline("a red mushroom", **quick)
    free = pipeline("a red mushroom", look="a blue mushroom", **quick)
    kept = pipeline("a red mushroom", look="a blue mushroom", keep_shape=True, **quick)
    for part in ("vertices", "faces", "uv", "normal_map"):
        assert torch.equal(torch.as_tensor(getattr(kept, part)), torch.as_tensor(getattr(plain, part)))
    assert not torch.equal(free.vertices.sum(), plain.vertices.sum())

    def blueness(mesh: Mesh) -> float:
        red, _, blue = torch.as_tensor(mesh.texture).double().flatten(0, 1).mean(0).tolist()
        return blue - red

    assert blueness(plain) < -20
    assert blueness(free) > 20
    assert blueness(kept) > 20


@torch.no_grad()
def test_look_is_also_in_the_field(pipeline: Pipeline) -> None:
    plain, kept = (
        pipeline.field(Request("a red mushroom", look=look, keep_shape=True))
        for look in ("", "a blue mushroom")
    )
    points = torch.rand(500, 3) * 2 - 1
    assert torch.equal(plain.sdf(points), kept.sdf(points))
    assert torch.equal(plain.offset(points), kept.offset(points))
    assert not torch.allclose(plain.rgb(points), kept.rgb(points), atol=0.1)


def test_looks_in_a_batch_match_single_ones_up_to_rounding(model: Model) -> None:
    """Without a kept shape in one batch, with one alone, so that its geometry is the draft's bit for bit."""
    looks = [("", False), ("a blue mushroom", False), ("a green mushroom", True), ("", False)]
    requests = [
        Request("a red mushroom", seed=3, look=look, keep_shape=keep, faces=None, **QUICK)
        for look, keep in looks
    ]
    _, outcomes = _several(Pipeline(model, together=True), requests)
    for request, outcome in zip(requests, outcomes, strict=True):
        *_, alone = Pipeline(model, together=False).stream(request)
        assert isinstance(alone, Result)
        assert isinstance(outcome, Result)
        assert outcome.request == alone.request
        here, there = (torch.as_tensor(one.mesh.texture).double().mean((0, 1)) for one in (outcome, alone))
        torch.testing.assert_close(here, there, atol=1, rtol=0)
    assert torch.equal(outcomes[2].mesh.vertices, outcomes[3].mesh.vertices)


def test_words_that_the_look_does_not_know_are_reported(pipeline: Pipeline) -> None:
    *_, result = pipeline.stream(Request("a red mushroom", look="a dragon mushroom", steps=1, **QUICK))
    assert isinstance(result, Result)
    assert result.look_reading is not None
    assert result.look_reading.unknown == ("dragon",)
    *_, result = pipeline.stream(Request("a red mushroom", look=" a red  mushroom", steps=1, **QUICK))
    assert result.look_reading is None


def test_synonyms_give_the_same_mesh(pipeline: Pipeline) -> None:
    canonical = pipeline("a red mushroom", seed=3, **QUICK)
    assert to_glb(pipeline("a crimson toadstool", seed=3, **QUICK)) == to_glb(canonical)
