"""How the full model is taught on this machine: its settings, its precision, and what is saved to fit."""

from __future__ import annotations

import json

import torch

from triplaneturbo.distill.memory.estimate import ModelSizes
from triplaneturbo.distill.memory.plan import Plan, plan
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import Settings
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.setup import precision, resolve_settings
from triplaneturbo.models.adapters import adapter
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.teachers import full, mvdream
from triplaneturbo.utils.devices import choose_precision, free_memory
from triplaneturbo.utils.units import GB


def full_settings(order: FinetuneConfig, config: GeneratorConfig, device: torch.device) -> Settings:
    """The full model's recipe with what the user asks for."""
    start = adapter(order.start) if order.start else None
    return resolve_settings(full_recipe(order.iterations, device=device.type), order, config, start)


def full_plan(
    order: FinetuneConfig, found: ModelFiles, config: GeneratorConfig, device: torch.device
) -> Plan:
    """What a run of the full model takes of a device, and what is given up for it to fit.

    The device gives what is free of it now, or the order's `memory` where that is less. So a model that
    stands beside it already, for generating, is counted.

    Raises:
        UserError: it does not fit; the base is none that MVDream can teach; or the order cannot be.
    """
    settings = full_settings(order, config, device)
    facts = ModelSizes.read(found.folder, found.base)
    width, wanted = json.loads(facts.unet)["cross_attention_dim"], mvdream.UNET["cross_attention_dim"]
    if "mvdream" in settings.teachers and width != wanted:
        raise UserError(
            f"The text embeddings of {found.name} have {width} numbers, and MVDream reads {wanted}: fine-tune"
            " a model on Stable Diffusion 2.1-base, or leave mvdream out of the teachers."
        )
    known = [size for size in (free_memory(device), int(order.memory * GB)) if size]
    if not known:
        raise UserError("This system does not tell how much memory is free: give it in GB, as --memory 16.")
    return plan(
        facts, settings, min(known), frozen=frozen_dtype(device), cuda=device.type == "cuda", serving=False,
        apart=device.type != "cpu", picture=full.SIZE,
    )  # fmt: skip


def frozen_dtype(device: torch.device) -> torch.dtype:
    """Precision of what does not learn: a half on a GPU that is quick in it, whose loss is then scaled."""
    return choose_precision("auto", device, small=False).dtype if device.type == "cuda" else torch.float32


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What float32 weights are computed in; None: in the weights' own precision.

    On a GPU there is no autocast: beside halves it would keep another copy of each weight for the backward
    pass, which no plan counts.
    """
    return precision(device) if device.type == "cpu" else None
