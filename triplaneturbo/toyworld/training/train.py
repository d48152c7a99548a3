"""Training of the built-in model with Progressive Rendering Distillation (PRD, arXiv 2503.21694).

    python -m triplaneturbo.toyworld train --folder runs/small

The stages are the view cache, the small Stable Diffusion (pretrain.py), and PRD (distill/prd.py) on the seen
captions with three teachers. Interrupted stages are resumed. The last one writes a complete model to `model/`
in the folder at every preview.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from triplaneturbo.distill import prd
from triplaneturbo.distill.prd import Place, Student, Trainer
from triplaneturbo.distill.settings import Settings, Tuning
from triplaneturbo.distill.student import around, unbend
from triplaneturbo.domains.registry import find_domain
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import ADAPTER_NAME, load_adapter, save_adapter
from triplaneturbo.models.config import TOYWORLD, GeneratorConfig
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.representations.triplane_rendering import surface, volume
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.load import load_teachers, teacher_files
from triplaneturbo.teachers.loader import TeacherContext
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.teachers.stable_diffusion import plain_base
from triplaneturbo.toyworld.captions.captions import captions
from triplaneturbo.toyworld.captions.combinations import (
    FINETUNE_SHARES,
    SHARES,
    BalancedSampler,
    held_out,
    seen,
)
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scene.view_cache import RIGS, SIZE, VIEWS, ViewCache
from triplaneturbo.toyworld.scene.view_renderer import shade
from triplaneturbo.toyworld.training.curves import log_line
from triplaneturbo.toyworld.training.data import ViewCacheData, meaning
from triplaneturbo.toyworld.training.pretrain import save_sheet
from triplaneturbo.utils.devices import autocast_dtype
from triplaneturbo.utils.distributed import DistributedContext

CONFIG = GeneratorConfig(
    plane_channels=16,
    mlp_width=32,
    mlp_bias=True,
    latent_size=16,
    grid_resolution=96,
    plane_embedding=True,
    steps=2,
)

# Differences from the full model's recipe. The closed-form teachers know every instance exactly, so guidance
# has nothing to sharpen (1); without it, ASD's signal grows with the shift, and a small shift drowns in
# noise. Above t = 900 they see only the mean of all instances. The surface sharpens while shapes emerge. The
# number of captions seen limits a run of some hours: one of two denoising steps is scored instead of all of
# four, and SOAP learns more from each caption than AdamW.
SMALL = Settings(
    learning_rate=2e-3,
    optimizer="soap",
    steps=CONFIG.steps,
    scored_steps=1,
    low=(200.0, 20.0),
    high=900,
    teachers={
        "rgb": TeacherSettings(shift=1.0),
        "geometry": TeacherSettings(shift=1.0, renderings=("volume",)),
        "sd": TeacherSettings(weight=0.05, guidance=(3.0, 3.0), renderings=("volume",), share=0.25),
    },
    size=SIZE,
    stride=4,
    surface_stride=2,
    nodes=48,
    sharpness=(15.0, 80.0),
    color_shrink=(1.0, 0.3),
    eikonal=(60.0, 20.0),
    sparsity=(0.0, 0.0),
    average=0.997,
)

# Training a finished model further, also in fine-tunings: a sharper surface on a finer grid and more weight
# of the geometry flatten faces, a quarter instead of a sixteenth of the volume's pixels costs little, and
# errors that are weighted by pixel, more so where the teacher sees an edge, bring out details, as does the
# sampler's own noise between steps. See docs/toyworld.md, "Experiments", and docs/training.md, "Presets".
FINISHING = replace(
    SMALL,
    noise="ddim",
    learning_rate=1e-3,
    teachers=SMALL.teachers
    | {
        "rgb": replace(SMALL.teachers["rgb"], weighting="pixel", contrast=4.0),
        "geometry": replace(SMALL.teachers["geometry"], weighting="pixel", weight=3.0),
    },
    stride=2,
    nodes=64,
    sharpness=(15.0, 160.0),
    schedule_offset=1.0,
)


def make_student(
    base: Path, config: GeneratorConfig, device: torch.device, tuning: Tuning = "peta"
) -> Student:
    """Create a student from the base in a folder; the adapter is initialized with torch's global generator.

    Args:
        base: folder in the diffusers layout.
        tuning: "peta"; "lora", one low-rank pair for all planes; or "full", the base itself without adapters.
    """
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    vae = AutoencoderKL.from_pretrained(base / "vae")
    scheduler = DDIMScheduler.from_pretrained(base / "scheduler")
    generator = TriplaneGenerator(unet, vae, scheduler, replace(config, plane_lora=tuning != "lora"))
    unbend(generator)
    encoder = TextEncoder(
        CLIPTokenizer.from_pretrained(base / "tokenizer"),
        CLIPTextModel.from_pretrained(base / "text_encoder"),
    )
    return around(generator, encoder, device, tuning=tuning)


def make_teachers(student: Student, view_cache: ViewCache, base: Path | None = None) -> list[Teacher]:
    """Create the toy world's teachers.

    Args:
        base: folder of the base, to be loaded separately if the student's own base is trained; else None.
    """
    generator = student.generator
    context = TeacherContext(
        generator,
        student.merged_lora.base if base is None else plain_base(base, generator.device),
        student.embed,
        generator.device,
        size=64,
        data=ViewCacheData(view_cache),
        shade=shade,
        autocast=autocast_dtype(generator.device),
    )
    return load_teachers(teacher_files(find_domain(TOYWORLD).teachers), context)


def read_captions(path: Path) -> list[Spec]:
    """Read a file with one caption per line, skipping blank lines; returns the specs.

    Raises:
        UserError: the file cannot be read or is empty, or a caption cannot be expressed or is held out.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Cannot read {path} ({error}): choose a text file with one caption per line."
        ) from None
    specs = [meaning(line) for line in lines if line]
    if not specs:
        raise UserError(f"{path} contains no captions: write one per line.")
    for spec in specs:
        if spec in held_out():
            raise UserError(f"{spec.caption!r} is held out for evaluation: remove it from {path}.")
    return specs


def make_draw(
    view_cache: ViewCache, specs: Iterable[Spec], device: torch.device, shares: Mapping[str, float] = SHARES
) -> prd.Draw:
    """Return a function that draws captions in random wordings, and a rig and backgrounds per step."""
    sampler = BalancedSampler(specs, shares)

    def draw(rng: np.random.Generator, count: int, steps: int, place: Place) -> list[SceneBatch]:
        everyone = count * place.size
        chosen = [sampler.draw(rng) for _ in range(everyone)]
        texts = []
        for spec in chosen:
            wordings = captions(spec)
            texts.append(wordings[int(rng.integers(len(wordings)))])
        rigs = [int(rng.permutation(RIGS)[step % RIGS]) for step in range(steps)]
        backgrounds = [torch.from_numpy(rng.random((everyone, 3), dtype=np.float32)) for _ in rigs]
        own = place.own(count)
        return [
            scenes(view_cache, texts[own], rig, background[own], device)
            for rig, background in zip(rigs, backgrounds, strict=True)
        ]

    return draw


def scenes(
    view_cache: ViewCache, texts: list[str], rig: int, background: Tensor, device: torch.device
) -> SceneBatch:
    """Create a batch of captions with the cameras of one rig of the view cache.

    Args:
        texts: B captions.
        rig: number of the rig.
        background: background colours [B, 3].
    """
    cameras = view_cache.cameras[rig * VIEWS : (rig + 1) * VIEWS]
    cameras = type(cameras)(
        cameras.c2w.repeat(len(texts), 1, 1), cameras.fovy.repeat(len(texts)), cameras.near, cameras.far
    )
    return SceneBatch(texts, cameras.to(device), VIEWS, background.to(device), rig)


def train(
    context: DistributedContext,
    folder: Path,
    keys: list,
    specs: list[Spec],
    settings: Settings,
    until: float,
    start: Path | None = None,
) -> None:
    """Start or resume the PRD stage.

    Args:
        folder: run folder, which holds `base/` and `pool/`.
        keys: keys of the view cache.
        specs: specs to train on.
        settings: `settings.start` identifies the adapter in `start`.
        until: value of `time.monotonic()` at which to stop.
        start: adapter file to start from, in the folder of its model; None: a new adapter.
    """
    torch.manual_seed(0)
    view_cache = ViewCache(folder / "pool", keys)
    config = CONFIG
    if start is not None:
        config = replace(CONFIG, variants=GeneratorConfig.load(start.parent).variants)
    student = make_student(folder / "base", settings.fitted(config), context.device, settings.tuning)
    if start is not None:
        load_adapter(student.generator, start)
    teachers = make_teachers(student, view_cache, folder / "base" if settings.tuning == "full" else None)

    def preview(trainer: Trainer) -> None:
        log = {key: round(value, 5) for key, value in trainer.log.items()}
        line = {"iteration": trainer.iteration, **log}
        log_line(folder / "train.jsonl", line)
        print("  ".join(f"{key} {value}" for key, value in line.items()), flush=True)
        with trainer.averaged():
            draw_preview(student, view_cache, folder / "preview.png")
            save_model(student.generator, folder, settings.steps)

    draw = make_draw(view_cache, specs, context.device, SHARES if start is None else FINETUNE_SHARES)
    prd.train(context, student, teachers, draw, settings, folder,
              autocast=autocast_dtype(context.device), progress=preview, until=until)  # fmt: skip


def preview_captions(count: int = 12) -> list[str]:
    """Return the fixed captions of the previews, half of them seen and half held out."""
    rng = np.random.default_rng(11)
    unseen = BalancedSampler(sorted(held_out(), key=lambda spec: spec.caption))
    known = BalancedSampler(seen())
    return [known.draw(rng).caption for _ in range(count // 2)] + [
        unseen.draw(rng).caption for _ in range(count // 2)
    ]


@torch.no_grad()
def draw_preview(student: Student, view_cache: ViewCache, path: Path) -> None:
    """Render surface and normals of fixed captions from two sides, four images per caption, into a PNG."""
    generator = student.generator
    texts = preview_captions()
    latents = generator.draw_latents(len(texts), torch.Generator().manual_seed(0))
    *_, clean = generator.denoise(latents, student.embed(texts))
    planes = generator.decode(clean)
    where = scenes(view_cache, texts, 1, torch.ones(len(texts), 3), generator.device)
    fields = generator.heads[generator.active].fields
    jitter = torch.Generator().manual_seed(0)
    view = volume(fields, planes, where, size=SIZE, stride=1, first=(0, 0), nodes=64, half=1.0,
                  sharpness=80.0, color_shrink=1.0, jitter=jitter)  # fmt: skip
    flat = surface(fields, planes, where, view.sdf, 1.0, SIZE)
    assert view.seen.normal is not None
    normals = (view.seen.normal + 1) / 2
    both = torch.cat((flat.rgb[:, :2], normals[:, :2]), 1).flatten(0, 1)  # [B * 4, H, W, 3]
    save_sheet(path, both.permute(0, 3, 1, 2) * 2 - 1, 12)


def save_model(generator: TriplaneGenerator, folder: Path, steps: int) -> None:
    """Write the base and the current adapter, trained with `steps` denoising steps, to `model/`.

    The layout is that of checkpoints/small.
    """
    model = folder / "model"
    if not model.exists():
        shutil.copytree(folder / "base", model)
    generator.config.save(model)
    save_adapter(generator, model / ADAPTER_NAME, steps=steps)
