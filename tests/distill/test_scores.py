"""Score distillation against a plain float64 implementation and the public implementation."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.parity_files import each_file, settings_of
from tests.helpers.seeded import seeded
from triplaneturbo.distill.scores import (
    Draws,
    ScoreSettings,
    direction,
    draw,
    score_gradients,
    shift_timesteps,
)
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.closed_form import ClosedFormRGB
from triplaneturbo.toyworld.training.sizes import make_scheduler

ALPHAS = make_scheduler().alphas_cumprod


class Formula:
    """A teacher with an analytic prediction that records its calls."""

    name, alphas = "formula", ALPHAS
    reads: tuple[str, ...] = ("rgb",)

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], bool]] = []

    def encode(self, seen: Renderings, scenes: SceneBatch, generator: torch.Generator) -> Tensor:
        return seen.rgb.movedim(-1, 2) * 3 - 1

    def condition(self, seen: Renderings, scenes: SceneBatch) -> float:
        return 0.4

    def unconditional(self, condition: float) -> None:
        return None

    def predict(
        self, noisy: Tensor, times: Tensor, condition: Any, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        self.calls.append((times.tolist(), guided))
        if condition is None:
            return torch.sin(noisy), None
        phase = times.view(-1, *[1] * (noisy.ndim - 1)) / 1000
        return torch.tanh(noisy * condition + phase), torch.sin(noisy) if guided else None


class Cosine:
    """A critic with an analytic prediction."""

    def predict(self, noisy: Tensor, times: Tensor, condition: Any) -> Tensor:
        return torch.cos(noisy) * condition


class Told:
    """A teacher with fixed predictions: conditional, unconditional and at the later timestep."""

    name, alphas = "told", ALPHAS
    reads: tuple[str, ...] = ("rgb",)

    def __init__(self, text: Tensor, free: Tensor, later: Tensor) -> None:
        self.text, self.free, self.later = text, free, later

    def encode(self, seen: Renderings, scenes: SceneBatch, generator: torch.Generator) -> Tensor:
        return seen.rgb

    def condition(self, seen: Renderings, scenes: SceneBatch) -> None:
        return None

    def unconditional(self, condition: None) -> None:
        return None

    def predict(
        self, noisy: Tensor, times: Tensor, condition: Any, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        return (self.text, self.free) if guided else (self.later, None)


def where(batch: int, views: int) -> SceneBatch:
    return SceneBatch(
        ["x"] * batch, orbit(torch.zeros(batch * views), 0.0, 2.0), views, torch.zeros(batch, 3)
    )


def transcribed(z: Tensor, teacher: Formula, settings: ScoreSettings) -> Tensor:
    """Compute g for z [B, n, ...] image by image in float64, with the random draws of `draw`."""
    rng = seeded()
    times = torch.randint(settings.low, settings.high, (len(z),), generator=rng)
    noise = torch.randn(z.shape, generator=rng).double()
    u = torch.rand(len(z), generator=rng).tolist()
    out = torch.zeros_like(z, dtype=torch.float64)
    for b, t in enumerate(times.tolist()):
        delta = settings.shift * (t - settings.low)
        delta = min(max(delta, 0), 999 - t)
        later = min(max(t + int(u[b] * delta), 1), 999)
        kept, kept_later = float(ALPHAS[t]), float(ALPHAS[later])
        alpha, sigma = math.sqrt(kept), math.sqrt(1 - kept)
        for v in range(z.shape[1]):
            clean, n = z[b, v].double(), noise[b, v]
            noisy = alpha * clean + sigma * n
            text, free = torch.tanh(noisy * 0.4 + t / 1000), torch.sin(noisy)
            first = free + settings.guidance * (text - free)
            if settings.kind == "sds":
                second = n
            elif settings.kind == "csd":
                second = free
            elif settings.kind == "vsd":
                second = torch.cos(noisy) * 0.4
            else:
                then = math.sqrt(kept_later) * clean + math.sqrt(1 - kept_later) * n
                second = torch.tanh(then * 0.4 + later / 1000) if settings.shift else text
            from_ = clean if settings.clean_weight else noisy
            x_first, x_second = (from_ - sigma * first) / alpha, (from_ - sigma * second) / alpha
            w = (clean - x_first).abs().mean()
            if settings.shift_level == "own":
                x_first = (noisy - sigma * first) / alpha
                x_second = (then - math.sqrt(1 - kept_later) * second) / math.sqrt(kept_later)
            out[b, v] = (x_second - x_first) / (w + 0.1)
    return out


@pytest.mark.parametrize("clean_weight", [False, True])
@pytest.mark.parametrize(
    ("kind", "shift", "guidance"),
    [
        ("asd", 0.1, 1.0),
        ("asd", 0.1, 20.0),
        ("asd", 0.0, 7.5),
        ("sds", 0.1, 7.5),
        ("sds", 0.0, 1.0),
        ("csd", 0.1, 1.0),
        ("csd", 0.1, 7.5),
        ("vsd", 0.1, 1.0),
        ("vsd", 0.1, 7.5),
    ],
)
def test_score_direction_matches_the_transcription(
    clean_weight: bool, kind: Any, shift: float, guidance: float
) -> None:
    settings = ScoreSettings(kind, guidance, shift, low=100, high=980, clean_weight=clean_weight)
    z = torch.randn(3, 2, 3, 4, 4)
    teacher = Formula()
    g, error = direction(teacher, z, 0.4, settings, draw(z, settings, 999, seeded()), Cosine())
    torch.testing.assert_close(g.double(), transcribed(z, teacher, settings), rtol=2e-4, atol=2e-5)
    assert error > 0
    assert len(teacher.calls) == (2 if kind == "asd" and shift else 1)
    assert teacher.calls[0][1] == (guidance != 1 or kind == "csd")  # unneeded predictions are skipped
    assert all(100 <= t < 980 for t in teacher.calls[0][0])


@pytest.mark.parametrize("clean_weight", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 20.0])
def test_a_shift_at_its_own_level_compares_clean_estimates_of_both_levels(
    clean_weight: bool, guidance: float
) -> None:
    settings = ScoreSettings(
        guidance=guidance, shift=0.5, shift_level="own", low=100, high=980, clean_weight=clean_weight
    )
    z = torch.randn(3, 2, 3, 4, 4)
    teacher = Formula()
    draws = draw(z, settings, 999, seeded())
    g, error = direction(teacher, z, 0.4, settings, draws)
    expected = transcribed(z, teacher, settings)
    torch.testing.assert_close(g.double(), expected, rtol=2e-4, atol=2e-5)
    released, same_error = direction(teacher, z, 0.4, replace(settings, shift_level="t"), draws)
    assert error == same_error
    assert float((released - expected).abs().max()) > 0.1


def test_without_a_shift_both_levels_are_the_same() -> None:
    settings = ScoreSettings(guidance=7.5, shift=0.0)
    z = torch.randn(2, 2, 3, 4, 4)
    draws = draw(z, settings, 999, seeded())
    one, other = (
        direction(Formula(), z, 0.4, replace(settings, shift_level=level), draws)[0] for level in ("t", "own")
    )
    assert torch.equal(one, other)


def test_a_perfect_teacher_has_no_gradient_at_its_own_levels() -> None:
    """Its clean estimates at t and t + delta are the same image; at level t, they would differ."""
    picture = torch.rand(1, 2, 3, 4, 4).double()

    class Perfect(Formula):
        def predict(
            self, noisy: Tensor, times: Tensor, condition: Any, guided: bool
        ) -> tuple[Tensor, Tensor | None]:
            kept = ALPHAS[times].double().view(-1, *[1] * (noisy.ndim - 1))
            return (noisy - kept.sqrt() * picture) / (1 - kept).sqrt(), None

    settings = ScoreSettings(shift=0.5, shift_level="own")
    z = torch.rand(1, 2, 3, 4, 4).double()
    draws = Draws(torch.tensor([400]), torch.randn(z.shape).double(), torch.tensor([590]))
    own, released = (
        direction(Perfect(), z, 0.4, replace(settings, shift_level=level), draws)[0] for level in ("own", "t")
    )
    assert float(own.abs().max()) < 1e-5
    assert float(released.abs().max()) > 0.1


def test_gradients_are_weighted_means_over_scenes_and_views() -> None:
    settings = ScoreSettings(guidance=2.0, weight=0.7)
    scenes, seen = where(3, 2), Renderings(torch.rand(3, 2, 4, 4, 3), torch.ones(3, 2, 4, 4))
    teacher = Formula()
    actual = score_gradients(teacher, seen, scenes, settings, seeded())
    z = teacher.encode(seen, scenes, seeded())
    g, error = direction(teacher, z, 0.4, settings, draw(z, settings, 999, seeded()))
    assert list(actual.by_field) == ["rgb"]
    # z = 3 rgb - 1, so a gradient on z counts three times.
    torch.testing.assert_close(actual.by_field["rgb"], g.movedim(2, -1) * (3 * 0.7 / (3 * 2)))
    assert actual.error == error
    assert not seen.rgb.requires_grad
    summed = score_gradients(teacher, seen, scenes, replace(settings, sum_scenes=True), seeded())
    torch.testing.assert_close(summed.by_field["rgb"], actual.by_field["rgb"] * 3)


@pytest.mark.parametrize("weighting", ["dmd", "level"])
def test_ism_uses_the_inversion_path(weighting: Any) -> None:
    """Against image-by-image inversion in float64."""
    settings = ScoreSettings(
        "ism", guidance=7.5, low=30, high=900, stride=150, interval=60, weighting=weighting
    )
    z = torch.randn(4, 2, 3, 4, 4)
    draws = draw(z, settings, 999, seeded())
    draws = replace(draws, times=torch.tensor([40, 350, 360, 861]))  # no step, some, one that just fits
    teacher = Formula()
    actual, _ = direction(teacher, z, 0.4, settings, draws)
    # Inversion needs the unconditional prediction alone; only the last step is guided.
    assert [guided for _, guided in teacher.calls] == [False] * (len(teacher.calls) - 1) + [True]
    for b, t in enumerate(draws.times.tolist()):
        turn = max(t - 60, 0)
        stops = [*range(150, turn, 150), turn] if turn else []
        for v in range(2):
            clean = z[b, v].double()
            noise = torch.sin(clean)  # without the caption
            for at in stops:
                alpha, sigma = math.sqrt(float(ALPHAS[at])), math.sqrt(1 - float(ALPHAS[at]))
                x = alpha * clean + sigma * noise
                noise = torch.sin(x)
                clean = (x - sigma * noise) / alpha
            alpha, sigma = math.sqrt(float(ALPHAS[t])), math.sqrt(1 - float(ALPHAS[t]))
            noisy = alpha * clean + sigma * noise
            first = torch.sin(noisy) + 7.5 * (torch.tanh(noisy * 0.4 + t / 1000) - torch.sin(noisy))
            w = (z[b, v] - (noisy - sigma * first) / alpha).abs().mean()
            g = sigma / alpha * (first - noise) / (w + 0.1 if weighting == "dmd" else 1)
            torch.testing.assert_close(actual[b, v].double(), g, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("weighting", "contrast"), [("pixel", 0.0), ("pixel", 4.0), ("dmd", 2.5), ("level", 1.0)]
)
def test_weights_of_pixels(weighting: Any, contrast: float) -> None:
    """Against pixel-by-pixel weights in float64, where neighbourhoods repeat the pixels at the edge."""
    settings = ScoreSettings("sds", low=30, high=900, weighting=weighting, contrast=contrast)
    z = torch.randn(2, 2, 3, 9, 10)
    draws = draw(z, settings, 999, seeded())
    actual, _ = direction(Formula(), z, 0.4, settings, draws)
    for b, t in enumerate(draws.times.tolist()):
        alpha, sigma = math.sqrt(float(ALPHAS[t])), math.sqrt(1 - float(ALPHAS[t]))
        for v in range(2):
            noisy = alpha * z[b, v].double() + sigma * draws.noise[b, v].double()
            first = torch.tanh(noisy * 0.4 + t / 1000)
            clean = (noisy - sigma * first) / alpha
            errors = (z[b, v] - clean).abs()  # [3, H, W]
            g = sigma / alpha * (first - draws.noise[b, v])
            for y in range(9):
                for x in range(10):
                    rows = [min(max(y + d, 0), 8) for d in range(-3, 4)]
                    columns = [min(max(x + d, 0), 9) for d in range(-3, 4)]
                    around = clean[:, rows][:, :, columns].flatten(1).mean(1)
                    error = errors[:, y, x].mean() + 0.05 if weighting == "pixel" else errors.mean() + 0.1
                    w = 1 + contrast * (clean[:, y, x] - around).abs().max()
                    expected = g[:, y, x] * w / (1 if weighting == "level" else error)
                    torch.testing.assert_close(actual[b, v, :, y, x].double(), expected, rtol=2e-4, atol=2e-5)


def test_vsd_needs_a_critic() -> None:
    scenes, seen = where(1, 2), Renderings(torch.rand(1, 2, 4, 4, 3), torch.ones(1, 2, 4, 4))
    with pytest.raises(ValueError, match="needs a critic"):
        score_gradients(Formula(), seen, scenes, ScoreSettings("vsd"), seeded())


def test_scores_are_deterministic_given_the_seed() -> None:
    scenes, seen = where(2, 2), Renderings(torch.rand(2, 2, 4, 4, 3), torch.ones(2, 2, 4, 4))
    first, again, other = (
        score_gradients(Formula(), seen, scenes, ScoreSettings(), seeded(s)).by_field["rgb"]
        for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", ["asd", "sds"])
def test_gradients_point_to_the_only_data_point(kind: Any) -> None:
    """With a single data point, gradients point from the rendering to that image."""
    picture = torch.rand(1, 2, 4, 4, 3)

    def data(captions: Any, scenes: SceneBatch, seen: Renderings, reads: Any) -> list[Renderings]:
        return [Renderings(picture, torch.ones(1, 2, 4, 4))]

    teacher = ClosedFormRGB(ALPHAS, data)
    scenes, seen = where(1, 2), Renderings(torch.rand(1, 2, 4, 4, 3), torch.ones(1, 2, 4, 4))
    settings = ScoreSettings(kind, shift=0.5, low=20)
    slope = score_gradients(teacher, seen, scenes, settings, seeded()).by_field["rgb"]
    # Per view, as w differs between views.
    same = torch.cosine_similarity(slope.flatten(2), (seen.rgb - picture).flatten(2), dim=2)
    assert (same > 0.999).all()


@each_file("asd/report.json")
def test_shifts_match_the_public_implementation(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, guidance = json.loads(file.read_text())["t_plus_table"], settings_of(file.parent)["guidance_cfg"]
    assert table
    for row in table:
        settings = ScoreSettings(shift=guidance[f"{row['module']}_plus_ratio"], low=row["min_step"])
        drawn = torch.tensor(row["u"])
        monkeypatch.setattr(torch, "rand", lambda *_, drawn=drawn, **__: drawn)
        assert shift_timesteps(torch.tensor(row["t"]), settings, 999, seeded()).tolist() == row["t_plus"]


def test_shifts_stay_within_the_timesteps() -> None:
    settings = ScoreSettings(shift=5.0, low=20)
    times = torch.arange(1000).repeat(20)
    later = shift_timesteps(times, settings, 999, seeded())
    assert (later >= times.clamp_min(1)).all()
    assert int(later.max()) <= 999
    assert torch.equal(later[times <= 20], times[times <= 20].clamp_min(1))
    assert int((later - times).max()) > 700


@each_file("asd/mv_case_*.safetensors", "asd/sd_case_*.safetensors", "asd/rd_case_*.safetensors")
def test_gradients_match_the_released_code(file: Path) -> None:
    """The released variant, scene by scene: it sums over scenes where ours averages."""
    case, name = load_file(file), file.name.partition("_")[0]
    views = len(case["grad_latents"]) // len(case[f"{name}_t"])
    z, expected, text, free, later = (
        case[
            f"{name}_latents" if key == "z" else key if key == "grad_latents" else f"{name}_{key}"
        ].unflatten(0, (-1, views))
        for key in ("z", "grad_latents", "eps_text", "eps_uncond", "eps_second")
    )
    shift = settings_of(file.parent)["guidance_cfg"][f"{name}_plus_ratio"]
    settings = ScoreSettings(guidance=float(case["guidance_scale"]), shift=shift, clean_weight=True)
    for i, t in enumerate(case[f"{name}_t"].tolist()):
        teacher = Told(text[i : i + 1], free[i : i + 1], later[i : i + 1])
        teacher.alphas = case["alphas_cumprod"]
        at = replace(settings, low=t, high=t + 1)
        seen = Renderings(z[i : i + 1], torch.ones(1, views, 1, 1))
        actual = score_gradients(teacher, seen, where(1, views), at, seeded())
        torch.testing.assert_close(actual.by_field["rgb"], expected[i : i + 1], rtol=1e-5, atol=1e-5)
        error = case["dmd_weight_w"].unflatten(0, (-1, views))[i].mean()
        assert actual.error == pytest.approx(float(error), rel=1e-5, abs=1e-5)
