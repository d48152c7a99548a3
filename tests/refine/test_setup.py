"""Refinements of models of both domains with random weights, and through the Python API."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.tiny import tiny_model
from triplaneturbo.distill.memory_plan import MemorySavings
from triplaneturbo.distill.ptd import Refiner
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.generation_metadata import Refinement
from triplaneturbo.mesh.io.metadata_reader import read_metadata
from triplaneturbo.models.config import OPEN, TOYWORLD
from triplaneturbo.pipeline import Pipeline
from triplaneturbo.refine import setup
from triplaneturbo.refine.options import RefineOptions
from triplaneturbo.refine.start import start
from triplaneturbo.representations.gaussian_asset import GaussianOptions
from triplaneturbo.request import Request
from triplaneturbo.teachers import stable_diffusion
from triplaneturbo.teachers.loader import TeacherContext
from triplaneturbo.utils.generators import exhaust


@pytest.fixture(scope="module", params=[TOYWORLD, OPEN])
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tiny_model(tmp_path_factory.mktemp("model") / "tiny", domain=request.param)
    return Pipeline.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("representation", ["field", "gaussians"])
def test_stable_diffusion_with_its_path_refines_models_of_both_domains(
    pipeline: Pipeline, representation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOYWORLD_SETTINGS", "OPEN_SETTINGS"):
        monkeypatch.setattr(setup, name, replace(getattr(setup, name), path_iterations=1))
    monkeypatch.setattr(setup, "OPEN_SIZE", 64)
    monkeypatch.setattr(stable_diffusion, "SIZE", 64)
    weights = [p.clone() for p in pipeline.model.generator.parameters()]
    request = pipeline.settle(Request("a red mushroom"))
    options = RefineOptions(representation, steps=1, teachers=("sd",))
    field = pipeline.field(request)
    refiner = exhaust(start(pipeline.model, "tiny", field, request, options, tmp_path))
    losses = refiner.step() | refiner.step()
    assert refiner.finished
    assert "path sd" in losses
    assert len(losses) > 1
    mesh = refiner.representation.export(replace(request, unwrap="none"))
    assert torch.isfinite(mesh.vertices).all()
    assert all(torch.equal(p, q) for p, q in zip(weights, pipeline.model.generator.parameters(), strict=True))


def test_full_size_teachers_have_the_precision_of_training(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, full-size models have no autocast, which would copy their weights."""
    contexts: list[TeacherContext] = []
    monkeypatch.setattr(setup, "load_teachers", lambda files, context: contexts.append(context) or [])
    monkeypatch.setattr(setup, "autocast_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(setup, "full_autocast_dtype", lambda device: None)
    options = RefineOptions(teachers=("sd",))
    exhaust(setup.setup(pipeline.model, "tiny", "a red mushroom", options, tmp_path))
    (context,) = contexts
    assert context.autocast == (torch.bfloat16 if pipeline.model.config.domain == TOYWORLD else None)


def test_resumed_refinement_keeps_its_savings(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pipeline.model.config.domain == TOYWORLD:
        pytest.skip("it has no savings")
    used: list[tuple[bool, bool]] = []

    def load(files: object, context: TeacherContext) -> list[object]:
        used.append((context.text_on_cpu, context.view_by_view))
        return []

    monkeypatch.setattr(setup, "load_teachers", load)
    monkeypatch.setattr(setup, "OPEN_SIZE", 32)
    chosen = MemorySavings(texts=True, views=True)
    monkeypatch.setattr(setup, "_savings", lambda *_: chosen)
    request = pipeline.settle(Request("a red mushroom"))
    field = pipeline.field(request)

    def begin() -> Refiner:
        return exhaust(start(pipeline.model, "tiny", field, request, RefineOptions(), tmp_path))

    refiner = begin()
    chosen = MemorySavings()
    refiner = begin()  # there is no checkpoint yet
    chosen = MemorySavings(texts=True)
    refiner.save()
    begin()
    assert used == [(True, True), (False, False), (False, False)]


def test_resume_refuses_other_losses(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pipeline.model.config.domain == TOYWORLD:
        pytest.skip("it has none of them")
    monkeypatch.setattr(setup, "load_teachers", lambda files, context: [])
    monkeypatch.setattr(setup, "OPEN_SIZE", 32)
    request = pipeline.settle(Request("a red mushroom"))
    field = pipeline.field(request)
    losses = {"total_variation": 1.0, "scale_loss": 1.0}

    def begin() -> Refiner:
        options = RefineOptions("gaussians")
        return exhaust(start(pipeline.model, "tiny", field, request, options, tmp_path))

    monkeypatch.setattr(GaussianOptions, "for_size", lambda size: GaussianOptions(size=size, **losses))
    begin().save()
    begin()
    losses["scale_loss"] = 2.0
    with pytest.raises(UserError, match=r"was started with draft scale_loss 1\.0, not 2\.0"):
        begin()


def test_the_field_is_that_of_the_generated_mesh(pipeline: Pipeline) -> None:
    request = Request("a red mushroom", seed=3, unwrap="none", faces=None, floaters=0.0)
    *_, result = pipeline.stream(request)
    expected = pipeline.field(request).rgb(result.mesh.vertices).clamp(0, 1)
    assert torch.equal(result.mesh.colors, expected)


def test_messages_have_the_name_of_the_model_but_not_of_its_folder(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "released-0123456789ab", domain=OPEN)
    pipeline = Pipeline(Pipeline.from_pretrained(folder, device="cpu").model, name="full")
    with pytest.raises(UserError, match=r"^full has no teacher rgb"):
        pipeline.refine("a cup", options=RefineOptions(teachers=("rgb",)))
    picture = Image.new("RGBA", (128, 128))
    picture.paste("red", (32, 32, 96, 96))
    picture.save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"^full cannot turn a picture into a shape"):
        pipeline.refine("a cup", image=tmp_path / "a.png")


def test_the_python_api_refines_from_a_prompt_and_resumes(tmp_path: Path) -> None:
    pipeline = Pipeline.from_pretrained(tiny_model(tmp_path / "tiny"), device="cpu")
    done: list[tuple[int, int]] = []

    class Stop(Exception):
        pass

    def stop_after_two(iteration: int, total: int, losses: dict[str, float]) -> None:
        assert losses.keys() >= {"rgb volume", "rgb surface", "geometry volume"}
        done.append((iteration, total))
        if len(done) == 2:
            raise Stop

    options = RefineOptions(steps=3, path="none")
    with pytest.raises(Stop):
        pipeline.refine("a red mushroom", options=options, progress=stop_after_two, unwrap="none")
    mesh = pipeline.refine(
        "a red mushroom", options=options, progress=lambda i, n, _: done.append((i, n)), unwrap="none",
        folder=tmp_path / "state",
    )  # fmt: skip
    assert done == [(1, 3), (2, 3), (1, 3), (2, 3), (3, 3)]
    draft = pipeline("a red mushroom", unwrap="none")
    assert len(mesh.faces) != len(draft.faces)
    read = read_metadata(mesh.save(tmp_path / "a.ply"))
    assert (read.request.prompt, read.request.unwrap) == ("a red mushroom", "none")
    teachers = ("rgb", "geometry")
    assert read.refinement == Refinement(3, refine_as="field", refine_teachers=teachers, refine_path="none")
    # The finished refinement is found again.
    again = pipeline.refine("a red mushroom", options=options, unwrap="none", folder=tmp_path / "state")
    assert torch.equal(again.vertices, mesh.vertices)
