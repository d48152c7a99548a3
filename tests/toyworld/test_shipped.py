"""The released built-in model: results match their prompts according to `score`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from triplaneturbo.evaluate.clip import Clip
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import TOYWORLD
from triplaneturbo.models.weights import Model, load_model
from triplaneturbo.toyworld.captions.caption_parser import parse
from triplaneturbo.toyworld.captions.combinations import held_out
from triplaneturbo.toyworld.scene.palette import COLORS
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.generated import make_generate, sphere
from triplaneturbo.toyworld.scoring.score import compare
from triplaneturbo.toyworld.training.clip import Judge
from triplaneturbo.toyworld.training.export import JUDGE, LIMIT
from triplaneturbo.toyworld.training.pretrain import sample

PROMPTS = (
    "a red mushroom",
    "a white rabbit",
    "a green cactus",
    "a grey castle",
    "a white chair",
    "a purple teapot",
    "a yellow ice cream",  # held out
    "a purple mushroom",  # held out
    "a black teapot",  # held out
)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(SMALL)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(Clip.load(SMALL / JUDGE))


def meant(prompt: str) -> Spec:
    spec = parse(prompt).spec
    assert spec is not None
    return spec


def test_shipped_model_is_trained_and_small(model: Model) -> None:
    assert model.trained
    assert model.config.domain == TOYWORLD
    assert sum(path.stat().st_size for path in SMALL.rglob("*") if path.is_file()) <= LIMIT


@pytest.mark.parametrize("prompt", PROMPTS)
def test_shipped_model_follows_prompts(model: Model, judge: Judge, prompt: str) -> None:
    spec = meant(prompt)
    instances = ground_truth.occupancy(spec)
    entry, _ = compare(make_generate(model)(prompt, 0), spec, instances, judge)
    plain, _ = compare(sphere(), spec, instances, judge)
    assert entry["rank"] == 0  # no caption is closer
    assert entry["volume_iou"] > max(0.6, plain["volume_iou"] + 0.1)
    assert entry["silhouette_iou"] > max(0.8, plain["silhouette_iou"] + 0.1)
    assert entry["color_error"] < 0.12 < plain["color_error"]
    assert entry["floaters_left"] == 0


def test_tested_prompts_include_held_out_ones() -> None:
    assert sum(meant(prompt) in held_out() for prompt in PROMPTS) == 3


def test_base_generates_images(model: Model) -> None:
    unet = UNet2DConditionModel.from_pretrained(SMALL / "unet", torch_dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(SMALL / "vae", torch_dtype=torch.float32)
    colors = ("red", "blue", "green", "yellow")
    captions = [f"a {color} {thing}" for color in colors for thing in ("apple", "sofa")]
    embeds = model.text.embed(captions)
    empty = model.text.embed([""]).expand_as(embeds)
    pictures = sample(unet, vae, embeds, empty, DDIMScheduler.from_pretrained(SMALL / "scheduler"))
    middle = ((pictures[:, :, 24:40, 24:40] + 1) * 127.5).flatten(2).median(2).values.numpy()  # [8, 3]
    palette = np.array(list(COLORS.values()))
    nearest = np.linalg.norm(middle[:, None] - palette, axis=2).argmin(1)
    right = [list(COLORS)[n] == caption.split()[1] for n, caption in zip(nearest, captions, strict=True)]
    assert sum(right) >= 6
