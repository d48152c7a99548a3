"""PRD learns, resumes exactly, and rejects invalid settings."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import toy
from tests.helpers.runs import learned, newest, same, trainer
from triplaneturbo.distill import prd
from triplaneturbo.distill.optimizer import OptimizerName
from triplaneturbo.distill.settings import Noise, Settings
from triplaneturbo.errors import UserError
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.representations.triplane_rendering import volume
from triplaneturbo.teachers.closed_form import ClosedFormRGB, ReferenceImages
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.teachers.stable_diffusion import StableDiffusion
from triplaneturbo.utils.distributed import DistributedContext

SHORT = replace(toy.SETTINGS, iterations=4)


@torch.no_grad()
def error(student: prd.Student) -> float:
    """Return the mean colour error of the student's renderings of the two objects on grey."""
    scenes = toy.draw(np.random.default_rng(0), 2, 1)[0]
    scenes = replace(scenes, background=torch.full((2, 3), 0.5))
    generator = student.generator
    latents = generator.draw_latents(2, torch.Generator().manual_seed(1))
    *_, clean = generator.denoise(latents, student.embed(scenes.prompts))
    fields = generator.heads[generator.active].fields
    jitter = torch.Generator().manual_seed(0)
    view = volume(fields, generator.decode(clean), scenes, size=toy.SIZE, stride=1, first=(0, 0), nodes=32,
                  half=1.0, sharpness=30.0, color_shrink=1.0, jitter=jitter)  # fmt: skip
    truth = toy.data(scenes.prompts, scenes, view.seen, ("rgb",))[0]
    return float((view.seen.rgb - truth.rgb).abs().mean())


def run(folder: Path, settings: Settings = toy.SETTINGS, **how) -> dict[str, Tensor]:
    """Train a new student in `folder`; return its weights and their averages."""
    prd.train(
        DistributedContext(), toy.student(), toy.teachers(), toy.draw, settings, folder, save_every=2, **how
    )
    return learned(newest(folder))


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 4e-3), ("soap", 1e-2)])
def test_training_learns_two_objects(tmp_path: Path, optimizer: OptimizerName, rate: float) -> None:
    student = toy.student()
    before = error(student)
    settings = replace(toy.SETTINGS, iterations=20, optimizer=optimizer, learning_rate=rate)
    logs: list[dict[str, float]] = []

    def keep(trainer: prd.Trainer) -> None:
        logs.append(dict(trainer.log))

    prd.train(
        DistributedContext(),
        student,
        toy.teachers(),
        toy.draw,
        settings,
        tmp_path,
        save_every=5,
        progress=keep,
    )
    # The base is random and frozen, so 20 iterations learn only colours and rough sizes.
    assert error(student) < 0.88 * before
    for name in ("rgb volume", "rgb surface", "geometry volume"):
        assert logs[-1][name] < 0.9 * logs[0][name]


@pytest.mark.parametrize("noise", ["ddim", "fresh"])
def test_the_sampler_s_noise_trains_on_the_inputs_of_generation(
    monkeypatch: pytest.MonkeyPatch, noise: Noise
) -> None:
    student, settings = toy.student(), replace(toy.SETTINGS, steps=4, noise=noise)
    predict, decode = student.generator.predict, student.generator.decode
    noisy: list[Tensor] = []
    decoded: list[Tensor] = []

    def note_noisy(latents: Tensor, time: int, text: Tensor) -> Tensor:
        noisy.append(latents)
        return predict(latents, time, text)

    def note_clean(latents: Tensor) -> Tensor:
        decoded.append(latents.detach())
        return decode(latents)

    with monkeypatch.context() as patch:
        patch.setattr(student.generator, "predict", note_noisy)
        patch.setattr(student.generator, "decode", note_clean)
        prd.accumulate_gradients(student, toy.teachers(), toy.draw, settings, prd.Place(), None)
    with torch.no_grad():
        generated = list(student.generator.denoise(noisy[0], student.embed(list(toy.CAPTIONS)), 4))
    assert len(decoded) == len(generated) == 4
    torch.testing.assert_close(decoded[0], generated[0])
    for trained, expected in zip(decoded[1:], generated[1:], strict=True):
        same_inputs = torch.allclose(trained, expected, rtol=1e-4, atol=1e-4)
        assert same_inputs == (noise == "ddim")


def test_the_initial_noise_of_generation_chooses_the_variants_of_all_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = toy.student(config=replace(toy.CONFIG, variants=3))
    generator, embedding = student.generator, student.generator.heads["default"].variants
    with torch.no_grad():
        embedding.normal_(generator=torch.Generator().manual_seed(0))
    settings = replace(toy.SETTINGS, batch=4, steps=3)
    inputs: list[tuple[Tensor, Tensor]] = []
    told: list[list[int]] = []
    predict = generator.predict

    def note_inputs(latents: Tensor, time: int, text: Tensor) -> Tensor:
        inputs.append((latents, text.detach()))
        return predict(latents, time, text)

    class Teacher(ClosedFormRGB):
        def condition(self, renderings: Renderings, scenes: SceneBatch) -> ReferenceImages:
            assert scenes.variants is not None
            told.append(scenes.variants.tolist())
            return super().condition(renderings, scenes)

    teacher = Teacher(generator.scheduler.alphas_cumprod, toy.data)
    monkeypatch.setattr(generator, "predict", note_inputs)
    prd.accumulate_gradients(student, [teacher], toy.draw, settings, prd.Place(), None)
    chosen = generator.choose_variants(inputs[0][0])
    assert len(set(chosen.tolist())) > 1
    assert told == [chosen.tolist()] * len(told)
    text = generator.with_variants(student.embed(list(toy.CAPTIONS) * 2), inputs[0][0])
    assert len(inputs) == 3
    assert all(torch.equal(shown, text) for _, shown in inputs)
    trained = [bool(row) for row in embedding.grad.abs().sum(1) > 0]
    assert trained == [row in chosen for row in range(3)]


def test_base_is_not_trained(tmp_path: Path) -> None:
    student = toy.student()
    frozen = {n: p.clone() for n, p in student.generator.named_parameters() if not p.requires_grad}
    prd.train(
        DistributedContext(), student, toy.teachers(), toy.draw, replace(toy.SETTINGS, iterations=2), tmp_path
    )
    after = dict(student.generator.named_parameters())
    assert frozen
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())


@pytest.mark.parametrize("optimizer", ["adamw", "soap", "adan"])
def test_interrupted_run_equals_uninterrupted_run(tmp_path: Path, optimizer: OptimizerName) -> None:
    class Killed(Exception):
        pass

    def kill(trainer: prd.Trainer) -> None:
        if trainer.iteration == 4:
            raise Killed

    settings = replace(toy.SETTINGS, iterations=6, optimizer=optimizer)
    whole = run(tmp_path / "whole", settings)
    with pytest.raises(Killed):
        run(tmp_path / "parts", settings, progress=kill)
    assert same(run(tmp_path / "parts", settings), whole)


def test_time_limit_stops_and_resume_continues(tmp_path: Path) -> None:
    settings = replace(toy.SETTINGS, iterations=3)
    student = toy.student()
    over = prd.train(
        DistributedContext(),
        student,
        toy.teachers(),
        toy.draw,
        settings,
        tmp_path,
        until=time.monotonic() - 1,
    )
    assert not over
    assert newest(tmp_path)["iteration"] == 1
    assert prd.train(DistributedContext(), toy.student(), toy.teachers(), toy.draw, settings, tmp_path)


def test_averaged_weights_are_temporary(tmp_path: Path) -> None:
    running = trainer(tmp_path, SHORT)
    named = {name: p for name, p in running.student.generator.named_parameters() if p.requires_grad}
    running.step()
    running.step()
    own = {name: p.detach().clone() for name, p in named.items()}
    with running.averaged():
        assert same(dict(named), running.average)
        assert not same(dict(named), own)
    assert same(dict(named), own)


def test_finished_run_does_no_step(tmp_path: Path) -> None:
    running = trainer(tmp_path, replace(SHORT, iterations=1))
    log = running.step()
    assert {"rgb volume", "rgb surface", "geometry volume", "eikonal", "opacity", "gradient"} == log.keys()
    assert running.finished
    with pytest.raises(ValueError, match="all 1 iterations"):
        running.step()


def test_other_settings_and_fingerprints_are_refused(tmp_path: Path) -> None:
    """Only the learning rate may change, to a lower one: the remedy for a run that diverged."""
    run(tmp_path, replace(toy.SETTINGS, iterations=2))
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    for change in ({"learning_rate": 0.5}, {"steps": 1}, {"seed": 3}, {"batch": 3}):
        with pytest.raises(UserError, match=f"{next(iter(change))} .*not {next(iter(change.values()))}"):
            trainer(tmp_path, replace(toy.SETTINGS, iterations=2, **change))
    with pytest.raises(UserError, match="prompts None, not 'abc'"):
        trainer(tmp_path, replace(toy.SETTINGS, iterations=2), fingerprint={"prompts": "abc"})
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before
    assert trainer(tmp_path, replace(toy.SETTINGS, iterations=2, learning_rate=1e-5)).finished


def test_critic_is_trained_and_resumed(tmp_path: Path) -> None:
    settings = replace(
        toy.SETTINGS, iterations=4, teachers={"sd": TeacherSettings(kind="vsd", renderings=("volume",))}
    )

    def run(folder: Path, stop: bool = False) -> dict:
        student = toy.student()
        generator = student.generator
        base = StableDiffusion(
            student.merged_lora.base, generator.vae, generator.scheduler, student.embed, 16
        )
        until = time.monotonic() - 1 if stop else math.inf
        prd.train(DistributedContext(), student, [base], toy.draw, settings, folder, until=until)
        return newest(folder)

    whole = run(tmp_path / "whole")
    interrupted = run(tmp_path / "parts", stop=True)["critics"]["sd"]["weights"]
    parts = run(tmp_path / "parts")
    assert same(parts["weights"], whole["weights"])
    learned = whole["critics"]["sd"]["weights"]
    assert all(torch.equal(a, b) for a, b in zip(learned, parts["critics"]["sd"]["weights"], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(learned, interrupted, strict=True))


def test_closed_form_teacher_has_no_critic(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a U-Net"):
        run(tmp_path, replace(SHORT, teachers={"rgb": TeacherSettings(kind="vsd")}))


def test_scored_steps_are_weighted_by_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one of K steps scored, the gradient is K times that step's part of Algorithm 1."""
    student = toy.student()
    parameters = [p for p in student.generator.parameters() if p.requires_grad]
    settings = replace(toy.SETTINGS, steps=3)
    rendered: list[int] = []

    def gradients(settings: Settings, weights: list[float]) -> list[Tensor]:
        rendered.clear()

        def loss(_generator: object, planes: Tensor, *_: object) -> Tensor:
            rendered.append(len(rendered))
            return weights[len(rendered) - 1] * (planes**2).sum()

        monkeypatch.setattr(prd, "rendering_loss", loss)
        for p in parameters:
            p.grad = None
        prd.accumulate_gradients(student, [], toy.draw, settings, prd.Place(1), None)
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]

    one = gradients(replace(settings, scored_steps=1), [1.0])
    assert rendered == [0]
    among = [gradients(settings, [3.0 * (step == other) for other in range(3)]) for step in range(3)]
    assert rendered == [0, 1, 2]
    off = [max(float((a - b).abs().max()) for a, b in zip(one, all_, strict=True)) for all_ in among]
    largest = max(float(gradient.abs().max()) for gradient in one)
    assert largest > 0
    assert sorted(value < 1e-5 * largest for value in off) == [False, False, True]
