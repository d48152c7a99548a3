"""Memory and duration of a refinement, known before the model is loaded."""

from __future__ import annotations

from typing import NamedTuple

import torch

from triplaneturbo.distill.memory import ModelSizes
from triplaneturbo.distill.memory_plan import Plan
from triplaneturbo.domains.registry import find_domain
from triplaneturbo.finetune.duration import UNKNOWN, Estimate
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import TOYWORLD, GeneratorConfig
from triplaneturbo.models.convert import convert_if_needed
from triplaneturbo.refine.duration import estimate_refinement, measured_speed
from triplaneturbo.refine.memory_plan import PlannedRefinement, plan_refinement
from triplaneturbo.refine.options import RefineOptions
from triplaneturbo.refine.setup import OPEN_SIZE, TOYWORLD_SETTINGS, TOYWORLD_TEACHERS, open_settings
from triplaneturbo.utils.devices import choose_precision, free_memory, full_autocast_dtype
from triplaneturbo.utils.durations import format_estimate


class Forecast(NamedTuple):
    """What a refinement will take; `plan` is None if it always fits or the free memory is unknown."""

    plan: Plan | None
    estimate: Estimate


def forecast(
    model_files: ModelFiles,
    options: RefineOptions,
    device: torch.device,
    precision: str,
    *,
    generates: bool,
    texels: int = 0,
    image: bool = False,
    done: int = 0,
    timed: bool = True,
) -> Forecast:
    """Plan the memory of a refinement and estimate its duration.

    Args:
        model_files: files of the model.
        options: the user's choices.
        device: device of the refinement.
        precision: precision of the model; see `choose_precision`.
        generates: whether the model generates a draft.
        texels, image: see `PlannedRefinement`.
        done: iterations that are done.
        timed: whether to estimate the duration, which takes seconds.

    Raises:
        UserError: it does not fit into memory, a teacher is not available, or a file is broken.
    """
    convert_if_needed(model_files)
    config = GeneratorConfig.load(model_files.folder)
    if config.domain == TOYWORLD:
        return Forecast(None, _toyworld_estimate(options, model_files.name, device, done))
    settings = open_settings(config.domain, model_files.name, options)
    sizes = ModelSizes.read(model_files.folder, model_files.base)
    dtype = choose_precision(precision, device, model_files.small).dtype
    available = free_memory(device)
    plan = None
    if available is not None:
        refinement = PlannedRefinement(
            sizes, settings, options.representation, OPEN_SIZE, device, dtype, generates=generates,
            texels=texels, image=image,
        )  # fmt: skip
        plan = plan_refinement(refinement, available)
    if not timed:
        return Forecast(plan, UNKNOWN)
    speed = measured_speed(device, full_autocast_dtype(device) or dtype)
    estimate = estimate_refinement(sizes, settings, options.representation, OPEN_SIZE, dtype, speed, done)
    return Forecast(plan, estimate)


def _toyworld_estimate(options: RefineOptions, name: str, device: torch.device, done: int) -> Estimate:
    """Return the duration with teachers in closed form on a CPU; others are unknown."""
    teachers = options.teachers_for(TOYWORLD, TOYWORLD_TEACHERS, name)
    seconds = find_domain(TOYWORLD).refine_seconds
    if (
        device.type != "cpu"
        or seconds is None
        or options.representation != "field"
        or not set(teachers) <= set(TOYWORLD_TEACHERS)
    ):
        return UNKNOWN
    total = seconds[0] + seconds[1] * max(0, (options.steps or TOYWORLD_SETTINGS.steps) - done)
    return Estimate(total, None, f"About {format_estimate(total)} on two cores.")
