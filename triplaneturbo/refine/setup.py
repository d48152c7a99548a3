"""RefineSetup: teachers, scenes and settings of a refinement, for models of both domains."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.distill.memory import ModelSizes
from triplaneturbo.distill.memory_plan import MemorySavings
from triplaneturbo.distill.ptd import ISM, Draw, RefineSettings
from triplaneturbo.distill.trainer import Place
from triplaneturbo.finetune.setup_full import draw_views
from triplaneturbo.models.config import TOYWORLD
from triplaneturbo.models.text_embedding_cache import TextEmbeddingCache
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.weights import Model, load_generator
from triplaneturbo.refine.memory_plan import PlannedRefinement, plan_refinement
from triplaneturbo.refine.options import RefineOptions
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.load import load_teachers, teacher_files
from triplaneturbo.teachers.loader import Data, Shade, TeacherContext
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.toyworld.scene.view_cache import RIGS, SIZE, ViewCache
from triplaneturbo.toyworld.scene.view_renderer import shade
from triplaneturbo.toyworld.training.data import ViewCacheData, meaning
from triplaneturbo.toyworld.training.subset import SubsetCache, draw_subset
from triplaneturbo.toyworld.training.train import scenes
from triplaneturbo.utils.devices import autocast_dtype, free_memory, full_autocast_dtype

# The closed forms know every instance exactly. SDS with them is the regression to the nearest one, without
# the noise of a second prediction; at small timesteps, it is the only one in sight.
_CLOSED_FORM = TeacherSettings(kind="sds")
TOYWORLD_SETTINGS = RefineSettings(
    steps=60,
    teachers={
        "rgb": _CLOSED_FORM,
        "geometry": replace(_CLOSED_FORM, renderings=("volume",), weight=8.0),
        "sd": ISM,
    },
    high=(300.0, 300.0),
)
TOYWORLD_TEACHERS = ("rgb", "geometry")
_TOYWORLD_VAE = 64  # pixels that the encoder of the small Stable Diffusion reads

# LucidDreamer's settings, with a tenth of its steps: the asset is a finished draft.
OPEN_SETTINGS = RefineSettings(steps=500, teachers=dict.fromkeys(("mvdream", "richdreamer", "sd"), ISM))
OPEN_TEACHERS = ("sd",)
OPEN_SIZE = 512
_LOSS_SCALE = 0.1  # of the scores, against the other losses of 3D Gaussians and their density control


@dataclass(frozen=True)
class RefineSetup:
    """Everything that a refinement needs besides the asset.

    Attributes:
        teachers: teachers with an entry in `settings.teachers`.
        draw: draws the prompt's scenes.
        settings: settings of the refinement.
        size: side of the images, in pixels.
        savings: memory savings with which the teachers were loaded.
    """

    teachers: Sequence[Teacher]
    draw: Draw
    settings: RefineSettings
    size: int
    savings: MemorySavings = MemorySavings()  # noqa: RUF009  frozen


def setup(
    model: Model,
    name: str,
    prompt: str,
    options: RefineOptions,
    folder: Path,
    savings: MemorySavings | None = None,
    texels: int = 0,
    image: bool = False,
) -> Generator[str, None, RefineSetup]:
    """Prepare the refinement of an asset of a model; yield what is being done.

    Args:
        model: the model; it stays unchanged.
        name: the model's name in messages.
        prompt: description of the asset.
        options: the user's choices.
        folder: receives the reference views of a toy-world model.
        savings: the memory savings of an open model's teachers; None: those that are needed now.
        texels, image: see `PlannedRefinement`.

    Raises:
        UserError: the toy world cannot express the prompt, the model has no such teacher, or a teacher is
            missing.
    """
    options = options.checked()
    if model.config.domain == TOYWORLD:
        names = options.teachers_for(TOYWORLD, TOYWORLD_TEACHERS, name)
        spec = meaning(prompt)
        for what in draw_subset(folder, [spec]):
            yield f"rendering {what}"
        cache = SubsetCache(folder, [spec])
        teachers = yield from _teachers(model, names, ViewCacheData(cache), shade, _TOYWORLD_VAE)
        draw = draw_rigs(prompt, cache, model.generator.device)
        return RefineSetup(teachers, draw, _settings(TOYWORLD_SETTINGS, names, options), SIZE)
    yield "estimating the memory"
    settings = open_settings(model.config.domain, name, options)
    if savings is None:
        savings = _savings(model, settings, options, texels, image)
    teachers = yield from _teachers(model, tuple(settings.teachers), savings=savings, refining=True)
    draw = draw_orbit(prompt, model.generator.device)
    return RefineSetup(teachers, draw, settings, OPEN_SIZE, savings)


def open_settings(domain: str, name: str, options: RefineOptions) -> RefineSettings:
    """Return the settings of a refinement of a model of an open domain.

    Args:
        domain: the model's domain.
        name: the model's name in messages.
        options: the user's choices.

    Raises:
        UserError: the model has no such teacher, or a teacher cannot give the chosen score.
    """
    settings = _settings(OPEN_SETTINGS, options.teachers_for(domain, OPEN_TEACHERS, name), options)
    if options.representation != "gaussians":
        return settings
    scaled = {name: replace(own, weight=_LOSS_SCALE) for name, own in settings.teachers.items()}
    return replace(settings, teachers=scaled)


def _savings(
    model: Model, settings: RefineSettings, options: RefineOptions, texels: int, image: bool
) -> MemorySavings:
    """Return the memory savings that a refinement needs beside the loaded model.

    Raises:
        UserError: it does not fit.
    """
    device = model.generator.device
    available = free_memory(device)
    if available is None:
        return MemorySavings()
    refinement = PlannedRefinement(
        ModelSizes.read(model.folder, model.base), settings, options.representation, OPEN_SIZE, device,
        model.generator.dtype, loaded=True, generates=False, texels=texels, image=image,
    )  # fmt: skip
    return plan_refinement(refinement, available).savings


def draw_rigs(prompt: str, cache: ViewCache, device: torch.device) -> Draw:
    """Return a `Draw` of the four views of a random rig of a view cache, with a random background."""

    def draw(rng: torch.Generator) -> SceneBatch:
        rig = int(torch.randint(RIGS, (), generator=rng))
        return scenes(cache, [prompt], rig, torch.rand(1, 3, generator=rng), device)

    return draw


def draw_orbit(prompt: str, device: torch.device) -> Draw:
    """Return a `Draw` of four views 90 degrees apart, from the cameras that the model was trained with."""
    views = draw_views([prompt], 0, device)

    def draw(rng: torch.Generator) -> SceneBatch:
        seed = int(torch.randint(2**31, (), generator=rng))
        (scene,) = views(np.random.default_rng(seed), 1, 1, Place())
        return scene

    return draw


def _settings(settings: RefineSettings, names: Sequence[str], options: RefineOptions) -> RefineSettings:
    """Return a domain's settings with the user's choices."""
    chosen = {name: settings.teachers[name] for name in names}
    if options.score:
        chosen = {name: replace(own, kind=options.score) for name, own in chosen.items()}  # type: ignore[arg-type]
    return replace(
        settings,
        steps=options.steps or settings.steps,
        teachers=chosen,
        path=options.path or settings.path,  # type: ignore[arg-type]
        seed=options.seed,
    )


def _teachers(
    model: Model,
    names: Sequence[str],
    data: Data | None = None,
    shading: Shade | None = None,
    size: int | None = None,
    savings: MemorySavings = MemorySavings(),  # noqa: B008  frozen
    refining: bool = False,
) -> Generator[str, None, list[Teacher]]:
    files = teacher_files(names)
    yield "loading the teachers"
    generator = model.generator
    if "sd" in names:
        generator = _with_encoder(model)
    device = model.generator.device
    embed: Callable[[list[str]], Tensor] = model.text.embed
    autocast = autocast_dtype(device)
    if refining:
        embed = TextEmbeddingCache(embed, device)
        autocast = full_autocast_dtype(device)
    context = TeacherContext(
        generator, generator.base, embed, device, size=size, data=data, shade=shading,
        text_on_cpu=savings.texts, view_by_view=savings.views, autocast=autocast, refining=refining,
    )  # fmt: skip
    return load_teachers(files, context)


def _with_encoder(model: Model) -> TriplaneGenerator:
    """Load the model's base again, with the VAE's encoder and without a merged adapter."""
    generator, _ = load_generator(
        model.folder, model.config, base=model.base, adapter=model.adapter, encoder=True
    )
    generator.to(model.generator.device)
    return generator.cast(model.generator.dtype).requires_grad_(False)
