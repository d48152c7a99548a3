"""Path-Tracing Distillation: both stages, all paths and representations, resuming, and what it improves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers import toy
from tests.helpers.fields import mushroom
from tests.helpers.tiny_multi_view import encoding_mvdream, richdreamer
from triplaneturbo.distill.ptd import ISM, Refiner, RefineSettings
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.voxels import filled, overlap
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.representations.base import Representation
from triplaneturbo.representations.gaussian_asset import GaussianAsset
from triplaneturbo.representations.triplane_asset import TriplaneAsset, TriplaneOptions
from triplaneturbo.request import Request
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.toyworld.scoring.ground_truth import voxelize

CLOSED = {"rgb": TeacherSettings(kind="sds"), "geometry": TeacherSettings(kind="sds")}
NETWORK = RefineSettings(steps=4, teachers={"sd": ISM}, path_iterations=3, path_share=0.5, path_checkpoints=2)


def asset(name: str = "field") -> Representation:
    field = mushroom()
    if name == "field":
        options = TriplaneOptions(size=toy.SIZE, stride=1, nodes=32, sharpness=40.0)
        return TriplaneAsset(field.planes, field.fields, options)
    return GaussianAsset.from_field(field, toy.SIZE, torch.Generator().manual_seed(0), Request(""))


def tensors(state: Any) -> list[Tensor]:
    """Return all tensors of a state in order."""
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state
    return [tensor for value in values for tensor in tensors(value)]


def run(refiner: Refiner, steps: int | None = None) -> dict[str, float]:
    losses: dict[str, float] = {}
    while not refiner.finished and steps != 0:
        losses |= refiner.step()
        steps = None if steps is None else steps - 1
    return losses


def sd() -> list[Teacher]:
    return [toy.diffusion(toy.student())]


@pytest.mark.parametrize("representation", ["field", "gaussians"])
@pytest.mark.parametrize("path", ["interpolate", "checkpoints", "none"])
def test_both_stages_move_the_asset_and_leave_the_model_untouched(path: str, representation: str) -> None:
    student = toy.student()
    before = [p.detach().clone() for p in student.generator.parameters()]
    one = asset(representation)
    start = [tensor.clone() for tensor in tensors(one.state_dict())]
    refiner = Refiner(one, [toy.diffusion(student)], toy.scene, replace(NETWORK, path=path))
    assert refiner.path_iterations == (0 if path == "none" else 3)
    losses = run(refiner, refiner.path_iterations)
    assert set(losses) == (set() if path == "none" else {"path sd"})
    assert all(torch.equal(a, b) for a, b in zip(start, tensors(one.state_dict()), strict=True))
    losses = run(refiner)
    rendering = {"field": {"sd volume", "sd surface"}, "gaussians": {"sd splatting"}}[representation]
    assert set(losses) == rendering
    assert not all(torch.equal(a, b) for a, b in zip(start, tensors(one.state_dict()), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, student.generator.parameters(), strict=True))


def test_the_networks_follow_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    refiner = Refiner(asset(), sd(), toy.scene, replace(NETWORK, steps=6))
    weights = []
    monkeypatch.setattr(refiner.paths["sd"], "set_weight", weights.append)
    run(refiner)
    assert weights == pytest.approx([1, 1 - (1 / 3) ** 0.3, 1 - (2 / 3) ** 0.3, 0, 0, 0])


@pytest.mark.parametrize(
    ("path", "representation", "kind", "stop"),
    [
        ("interpolate", "field", "vsd", 2),  # in stage 1
        ("interpolate", "field", "vsd", 5),
        ("checkpoints", "gaussians", "ism", 5),
        ("none", "field", "csd", 2),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_bytes(
    tmp_path: Path, path: str, representation: str, kind: str, stop: int
) -> None:
    settings = replace(NETWORK, path=path, teachers={"sd": replace(ISM, kind=kind)})
    whole = Refiner(asset(representation), sd(), toy.scene, settings)
    run(whole)
    interrupted = Refiner(asset(representation), sd(), toy.scene, settings, tmp_path, save_every=1)
    run(interrupted, stop)
    resumed = Refiner(asset(representation), sd(), toy.scene, settings, tmp_path)
    assert resumed.iteration == interrupted.iteration > 0
    run(resumed)
    ends = [tensors(refiner.representation.state_dict()) for refiner in (whole, resumed)]
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert whole.log == resumed.log


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    settings = replace(NETWORK, path="none")
    run(Refiner(asset(), sd(), toy.scene, settings, tmp_path, save_every=1, fingerprint={"prompt": "a"}), 1)
    with pytest.raises(UserError, match="started with prompt 'a', not 'b'"):
        Refiner(asset(), sd(), toy.scene, settings, tmp_path, fingerprint={"prompt": "b"})
    with pytest.raises(UserError, match="started with steps 4, not 5"):
        Refiner(asset(), sd(), toy.scene, replace(settings, steps=5), tmp_path, fingerprint={"prompt": "a"})


def test_teachers_without_a_network_have_no_path() -> None:
    refiner = Refiner(asset(), toy.teachers(), toy.scene, RefineSettings(teachers=CLOSED, steps=1))
    assert not refiner.notes
    assert refiner.path_iterations == 0
    run(refiner)
    with pytest.raises(UserError, match="rgb has no network to train for vsd"):
        Refiner(
            asset(), toy.teachers(), toy.scene, RefineSettings(teachers={"rgb": replace(ISM, kind="vsd")})
        )


def test_a_loss_that_is_not_finite_leaves_the_asset_as_it_was() -> None:
    one, broken = asset(), toy.Broken("encode", 1)
    settings = RefineSettings(teachers={"rgb": TeacherSettings(kind="sds", renderings=("volume",))})
    refiner = Refiner(one, [broken], toy.scene, settings)
    run(refiner, 1)
    before = [tensor.clone() for tensor in tensors(one.state_dict())]
    with pytest.raises(UserError, match="not finite at step 2"):
        refiner.step()
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(one.state_dict()), strict=True))
    assert all(p.grad is None for group in one.parameters() for p in group["params"])


def test_a_few_steps_with_exact_teachers_bring_the_shape_and_the_colours_closer() -> None:
    truth, red = voxelize(toy.solid(toy.CAPTIONS[0]), 48), torch.tensor([0.84, 0.12, 0.13])

    def measure(one: Representation) -> tuple[float, float]:
        mesh = one.export(Request("", resolution=48, unwrap="none"))
        assert mesh.colors is not None
        shape = filled(mesh.vertices, mesh.faces, 48)
        return overlap(shape, truth), float((mesh.colors - red).abs().mean())

    one = asset()
    iou, error = measure(one)
    run(Refiner(one, toy.teachers(), toy.scene, RefineSettings(teachers=CLOSED, path="none", steps=30)))
    refined_iou, refined_error = measure(one)
    assert refined_iou > iou + 0.2
    assert refined_error < 0.75 * error


@pytest.mark.parametrize("representation", ["field", "gaussians"])
@pytest.mark.parametrize("make", [encoding_mvdream, richdreamer])
def test_multi_view_networks_have_a_path(make: Callable[[], Teacher], representation: str) -> None:
    torch.manual_seed(0)
    teacher = make()
    settings = replace(NETWORK, steps=2, path_iterations=1, teachers={teacher.name: ISM})
    refiner = Refiner(asset(representation), [teacher], toy.scene, settings)
    losses = run(refiner)
    assert losses.keys() >= {f"path {teacher.name}"}
    assert len(losses) > 1


def test_views_of_other_cameras_can_be_drawn() -> None:
    """A network teacher needs no fixed rig."""

    def draw(rng: torch.Generator) -> SceneBatch:
        azimuth = float(torch.rand((), generator=rng)) * 360
        return SceneBatch(["a"], orbit([azimuth, azimuth + 180], 15.0, 2.5), 2, torch.ones(1, 3))

    refiner = Refiner(asset("gaussians"), sd(), draw, replace(NETWORK, steps=1, path_iterations=1))
    assert set(run(refiner)) == {"path sd", "sd splatting"}
