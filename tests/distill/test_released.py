"""The full released guidance with all three teachers, against the public implementation."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from tests.teachers.test_multi_view import read
from triplaneturbo.distill import scores
from triplaneturbo.distill.scores import Draws, ScoreSettings, score_gradients
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.teachers import richdreamer
from triplaneturbo.teachers.base import Renderings, SceneBatch, Teacher
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.teachers.richdreamer import RichDreamer
from triplaneturbo.teachers.stable_diffusion import StableDiffusion

STEPS = (0, 7500, 15000)
Case = dict[str, Tensor]


def smaller(images: Tensor) -> Tensor:
    """Resize images [N, H, W, 4] that serve as latents to [N, 4, 8, 8]."""
    return F.interpolate(images.movedim(-1, 1), (8, 8), mode="bilinear", align_corners=False)


class LatentMVDream(MVDream):
    """MVDream that uses four-channel images as latents."""

    def encode(self, seen: Renderings, scenes: SceneBatch, generator: torch.Generator) -> Tensor:
        return smaller(seen.rgb.flatten(0, 1)).unflatten(0, (-1, 4))


class LatentStableDiffusion(StableDiffusion):
    """Stable Diffusion that uses four-channel images as latents, with given view indices."""

    view: Tensor

    def encode(self, seen: Renderings, scenes: SceneBatch, generator: torch.Generator) -> Tensor:
        return smaller(seen.rgb.flatten(0, 1)[self.view])[:, None]


class MadeRichDreamer(RichDreamer):
    """RichDreamer that reads precomputed normals and disparity."""

    reads: tuple[str, ...] = ("normal", "depth")


def embedding(case: Case, kind: str, otherwise: str):
    """Return a text encoder with a case's embeddings of its captions and of any other text."""
    return lambda texts: case[f"text_{kind}"] if len(texts) == 2 else case[otherwise]


def teachers(parity: Path, case: Case) -> dict[str, Teacher]:
    settings = json.loads((parity / "asd" / "config.json").read_text())["sd_unet_diffusers_config"]
    unet = UNet2DConditionModel(**settings).eval().requires_grad_(False)
    unet.load_state_dict(load_file(parity / "asd" / "sd_unet_small.safetensors"))
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    sd = LatentStableDiffusion(
        lambda: nullcontext(unet), AutoencoderKL(), scheduler, embedding(case, "sd21", "empty_sd21"), 64
    )
    sd.view = case["sd_view_index"].long()
    mv = LatentMVDream(
        read(parity, "mvdream"), AutoencoderKL(), embedding(case, "sd21", "neg_sd21"), released=True
    )
    rd = MadeRichDreamer(read(parity, "nd_mv"), embedding(case, "sd15", "neg_sd15"), size=8, released=True)
    return {"mv": mv, "sd": sd, "rd": rd}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_whole_calls(parity: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = load_file(parity / "asd" / f"full_case_{number}.safetensors")
    scenes = SceneBatch(
        ["one", "other"], Cameras(case["c2w"], torch.full((8,), torch.pi / 3)), 4, torch.ones(2, 3)
    )
    rgb, normal, near = (case[name].unflatten(0, (2, 4)) for name in ("rgb", "normal", "disparity"))
    seen = Renderings(rgb, torch.ones(2, 4, 16, 16), normal, near)
    # Normals and disparity are precomputed.
    monkeypatch.setattr(
        richdreamer, "normals_and_disparity", lambda given, _: torch.cat((given.normal, given.depth), -1)
    )
    report = json.loads((parity / "asd" / "report.json").read_text())["runs"][number]
    assert report["step"] == STEPS[number]
    guidance = {"mv": report["hyper"]["mv_guidance_scale"], "sd": 7.5, "rd": 20.0}
    actual: dict[str, Tensor] = {}
    for name, teacher in teachers(parity, case).items():
        teacher.alphas = case["alphas_cumprod"]
        views = 1 if name == "sd" else 4
        latents = teacher.encode(seen, scenes, torch.Generator())
        torch.testing.assert_close(latents.flatten(0, 1), case[f"{name}_latents"], rtol=0, atol=1e-6)
        drawn = Draws(
            case[f"{name}_t"].long(),
            case[f"{name}_noise"].unflatten(0, (2, views)),
            case[f"{name}_t_plus"].long(),
        )
        monkeypatch.setattr(scores, "draw", lambda *_, drawn=drawn: drawn)
        settings = ScoreSettings(
            guidance=guidance[name], shift=0.1 if name == "rd" else 0.0, clean_weight=True, sum_scenes=True
        )
        for field, gradient in score_gradients(
            teacher, seen, scenes, settings, torch.Generator()
        ).by_field.items():
            actual[field] = actual.get(field, torch.zeros(())) + gradient.flatten(0, 1)
    torch.testing.assert_close(actual["rgb"], case["grad_rgb"], rtol=0, atol=1e-5)
    torch.testing.assert_close(actual["normal"], case["grad_normal"], rtol=0, atol=1e-5)
    torch.testing.assert_close(actual["depth"], case["grad_disparity"], rtol=0, atol=1e-5)
