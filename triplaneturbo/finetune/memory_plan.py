"""Settings, precision and memory plan of full-model training on a device."""

from __future__ import annotations

import json

import torch

from triplaneturbo.distill.memory.estimate import ModelSizes
from triplaneturbo.distill.memory.plan import Plan, plan
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import Settings
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.setup import compute_dtype, resolve_settings
from triplaneturbo.models.adapters import adapter
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.teachers import full, mvdream
from triplaneturbo.utils.devices import choose_precision, free_memory
from triplaneturbo.utils.units import GB


def full_settings(run_config: FinetuneConfig, config: GeneratorConfig, device: torch.device) -> Settings:
    """Return the full model's recipe with the user's options."""
    start = adapter(run_config.start) if run_config.start else None
    return resolve_settings(full_recipe(run_config.iterations, device=device.type), run_config, config, start)


def full_plan(
    run_config: FinetuneConfig, model_files: ModelFiles, config: GeneratorConfig, device: torch.device
) -> Plan:
    """Plan the memory of a full-model run and the savings that make it fit.

    The limit is the free memory of the device or the configured `memory`, whichever is less. A model that is
    already loaded for serving is thereby accounted for.

    Raises:
        UserError: if the run does not fit, the base is incompatible with MVDream, or a value is invalid.
    """
    settings = full_settings(run_config, config, device)
    model_sizes = ModelSizes.read(model_files.folder, model_files.base)
    width, expected = json.loads(model_sizes.unet)["cross_attention_dim"], mvdream.UNET["cross_attention_dim"]
    if "mvdream" in settings.teachers and width != expected:
        raise UserError(
            f"The text embeddings of {model_files.name} have {width} dimensions, but MVDream needs"
            f" {expected}: use a model based on Stable Diffusion 2.1-base, or"
            " leave mvdream out of the teachers."
        )
    limits = [size for size in (free_memory(device), int(run_config.memory * GB)) if size]
    if not limits:
        raise UserError(
            "The amount of free memory is unknown on this system: give it in GB, such as --memory 16."
        )
    return plan(
        model_sizes, settings, min(limits), frozen=frozen_dtype(device), cuda=device.type == "cuda",
        serving=False, separate_memory=device.type != "cpu", picture=full.SIZE,
    )  # fmt: skip


def frozen_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of frozen weights: float16 with loss scaling on GPUs that are fast in it."""
    return choose_precision("auto", device, small=False).dtype if device.type == "cuda" else torch.float32


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the autocast dtype; None for the precision of the weights.

    There is no autocast on a GPU: with half-precision weights it would keep another copy of each weight for
    the backward pass, which the plan does not count.
    """
    return compute_dtype(device) if device.type == "cpu" else None
