"""The full released guidance with all three teachers, against the public implementation."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.parity_files import each_file, settings_of
from tests.helpers.released_files import small_unet
from triplaneturbo.distill import scores
from triplaneturbo.distill.scores import Draws, ScoreSettings, score_gradients
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers import richdreamer
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.multi_view import VIEWS
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.teachers.richdreamer import RichDreamer
from triplaneturbo.teachers.stable_diffusion import StableDiffusion

Case = dict[str, Tensor]
CAPTION = "caption of scene"


def smaller(images: Tensor, size: int) -> Tensor:
    """Resize images [N, H, W, 4] that serve as latents to [N, 4, size / 8, size / 8]."""
    return F.interpolate(images.movedim(-1, 1), (size // 8,) * 2, mode="bilinear", align_corners=False)


class LatentMVDream(MVDream):
    """MVDream that uses four-channel images as latents."""

    def encode(self, seen: Renderings, scenes: SceneBatch, generator: torch.Generator) -> Tensor:
        return smaller(seen.rgb.flatten(0, 1), self.size).unflatten(0, (-1, scenes.views))


class LatentStableDiffusion(StableDiffusion):
    """Stable Diffusion that uses four-channel images as latents, with given view indices."""

    view: Tensor

    def encode(self, seen: Renderings, scenes: SceneBatch, generator: torch.Generator) -> Tensor:
        return smaller(seen.rgb.flatten(0, 1)[self.view], self.size)[:, None]


class MadeRichDreamer(RichDreamer):
    """RichDreamer that reads precomputed normals and disparity."""

    reads: tuple[str, ...] = ("normal", "depth")


def embedding(case: Case, kind: str, otherwise: str):
    """Return a text encoder with a case's embeddings of its captions and of any other text."""
    return lambda texts: case[f"text_{kind}"] if texts[0].startswith(CAPTION) else case[otherwise]


def teachers(parity: Path, case: Case) -> dict[str, Teacher]:
    settings = settings_of(parity / "asd")
    guidance = settings["guidance_cfg"]
    unet = UNet2DConditionModel(**settings["sd_unet_diffusers_config"]).eval().requires_grad_(False)
    unet.load_state_dict(load_file(parity / "asd" / "sd_unet_small.safetensors"))
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    sd = LatentStableDiffusion(
        lambda: nullcontext(unet),
        AutoencoderKL(),
        scheduler,
        embedding(case, "sd21", "empty_sd21"),
        guidance["sd_image_size"],
    )
    sd.view = case["sd_view_index"].long()
    mv = LatentMVDream(
        small_unet(parity, "mvdream"),
        AutoencoderKL(),
        embedding(case, "sd21", "neg_sd21"),
        size=guidance["mv_image_size"],
        released=True,
    )
    rd = MadeRichDreamer(
        small_unet(parity, "nd_mv"),
        embedding(case, "sd15", "neg_sd15"),
        size=guidance["rd_image_size"],
        released=True,
    )
    return {"mv": mv, "sd": sd, "rd": rd}


@each_file("asd/full_case_*.safetensors")
def test_gradients_match_the_released_trainer(
    parity: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, released = load_file(file), settings_of(file.parent)["guidance_cfg"]
    count = len(case["mv_t"])
    cameras = Cameras(case["c2w"], torch.full((len(case["c2w"]),), torch.pi / 3))
    scenes = SceneBatch([f"{CAPTION} {i}" for i in range(count)], cameras, VIEWS, torch.ones(count, 3))
    rgb, normal, near = (case[name].unflatten(0, (count, VIEWS)) for name in ("rgb", "normal", "disparity"))
    seen = Renderings(rgb, torch.ones(rgb.shape[:-1]), normal, near)
    # Normals and disparity are precomputed.
    monkeypatch.setattr(
        richdreamer, "normals_and_disparity", lambda given, _: torch.cat((given.normal, given.depth), -1)
    )
    # MVDream's guidance changes during training: a case holds the one of its step.
    guidance = {name: released[f"{name}_guidance_scale"] for name in ("sd", "rd")}
    guidance["mv"] = float(case["mv_guidance_scale"])
    actual: dict[str, Tensor] = {}
    for name, teacher in teachers(parity, case).items():
        teacher.alphas = case["alphas_cumprod"]
        views = len(case[f"{name}_latents"]) // count
        latents = teacher.encode(seen, scenes, torch.Generator())
        torch.testing.assert_close(latents.flatten(0, 1), case[f"{name}_latents"], rtol=0, atol=1e-6)
        drawn = Draws(
            case[f"{name}_t"].long(),
            case[f"{name}_noise"].unflatten(0, (count, views)),
            case[f"{name}_t_plus"].long(),
        )
        monkeypatch.setattr(scores, "draw", lambda *_, drawn=drawn: drawn)
        settings = ScoreSettings(
            guidance=guidance[name],
            shift=released[f"{name}_plus_ratio"],
            clean_weight=True,
            sum_scenes=True,
        )
        for field, gradient in score_gradients(
            teacher, seen, scenes, settings, torch.Generator()
        ).by_field.items():
            actual[field] = actual.get(field, torch.zeros(())) + gradient.flatten(0, 1)
    torch.testing.assert_close(actual["rgb"], case["grad_rgb"], rtol=0, atol=1e-5)
    torch.testing.assert_close(actual["normal"], case["grad_normal"], rtol=0, atol=1e-5)
    torch.testing.assert_close(actual["depth"], case["grad_disparity"], rtol=0, atol=1e-5)
