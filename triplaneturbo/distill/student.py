"""Preparation of a model for training.

Trained parameters are float32: adapters, plane embeddings and heads or, with "full" tuning, the U-Net and the
decoder. Frozen parameters may have a lower precision.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor

from triplaneturbo.distill.prd import Student
from triplaneturbo.distill.settings import Tuning
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import ADAPTER_NAME
from triplaneturbo.models.config import OPEN, GeneratorConfig
from triplaneturbo.models.groupnorm_layout import use_contiguous_groupnorm
from triplaneturbo.models.merged_lora import MergedLora
from triplaneturbo.models.mixed_precision_lora import use_mixed_precision_lora
from triplaneturbo.models.peta import PlaneLora
from triplaneturbo.models.text_embedding_cache import TextEmbeddingCache
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.weights import load_generator, load_text


def load_student(
    folder: Path,
    base: Path | None,
    device: torch.device,
    *,
    frozen: torch.dtype = torch.float32,
    tuning: Tuning = "peta",
    adapter: Path | None = None,
    checkpointing: bool = False,
    text_on_cpu: bool = False,
    config: GeneratorConfig | None = None,
    train_offsets: bool = False,
    new: bool = False,
) -> Student:
    """Load a model for training.

    Training starts from `adapter`, or else the model's own adapter. A new adapter, initialized from torch's
    global generator, replaces the model's own one if that is incompatible: with "lora" or "full" tuning, or
    another `config`, or if `new` is True.

    Args:
        folder: model folder with its configuration and adapter.
        base: folder of the base model; None for `folder`.
        device: device of the training.
        frozen: dtype of frozen weights: float32, float16 or bfloat16. float16 requires loss scaling
            (`distill.loss_scaling`).
        tuning: "peta" (per-plane adapters), "lora" (shared by all planes) or "full" (the whole base).
        adapter: file of a compatible adapter to start from.
        checkpointing: gradient checkpointing; see `TriplaneGenerator.recompute`.
        text_on_cpu: keep the text encoder on the CPU.
        config: configuration with other adapter ranks; None for the model's own.
        train_offsets: train the MLP of the grid offsets; see `Settings.train_offsets`.
        new: start from a new adapter in any case.

    Raises:
        UserError: if a part is missing, broken or incompatible.
    """
    own = GeneratorConfig.load(folder)
    if tuning == "peta" and not own.plane_lora and config is None:
        raise UserError(f"The adapter of {folder} is shared by all planes: use lora tuning.")
    target = replace(config or own, plane_lora=tuning != "lora", untrained_seed=own.untrained_seed)
    keeps_adapter = tuning != "full" and _adapter_config(target) == _adapter_config(own)
    if adapter is not None and tuning == "full":
        raise UserError("Full tuning cannot start from an adapter: choose peta or lora tuning.")
    new = new or (adapter is None and not (keeps_adapter and (folder / ADAPTER_NAME).is_file()))
    generator, trained = load_generator(folder, target, base=base, adapter=adapter, encoder=True, new=new)
    if new:
        unbend(generator)
    text = load_text(base or folder, None if trained else own.untrained_seed)
    return around(
        generator, text, device, frozen=frozen, tuning=tuning, checkpointing=checkpointing,
        text_on_cpu=text_on_cpu, train_offsets=train_offsets,
    )  # fmt: skip


def around(
    generator: TriplaneGenerator,
    text: TextEncoder,
    device: torch.device,
    *,
    frozen: torch.dtype = torch.float32,
    tuning: Tuning = "peta",
    checkpointing: bool = False,
    text_on_cpu: bool = False,
    train_offsets: bool = False,
) -> Student:
    """Prepare a generator and a text encoder for training on `device`; see `load_student`."""
    if tuning == "full":
        unfreeze_base(generator)
    for head in generator.heads.values():
        head.fields.offset.requires_grad_(train_offsets)
    use_contiguous_groupnorm(generator)
    if device.type == "cpu":
        # Its backward pass is faster than that of fused attention on a CPU.
        generator.vae.set_attn_processor(AttnProcessor())
    generator.to(device)
    half = frozen != torch.float32
    if half:
        cast_frozen(generator, frozen)
    if checkpointing:
        generator.recompute()
    # As in generation: on a CPU, texts are embedded in float32.
    if not text_on_cpu:
        text.model.to(device, frozen if device.type == "cuda" else torch.float32)
    return Student(generator, MergedLora(generator, live=half), TextEmbeddingCache(text.embed, device))


def _adapter_config(config: GeneratorConfig) -> GeneratorConfig:
    """Return a configuration that compares equal if adapters are interchangeable."""
    return replace(config, grid_resolution=1, steps=1, domain=OPEN, untrained_seed=None)


def cast_frozen(generator: TriplaneGenerator, dtype: torch.dtype) -> None:
    """Cast frozen parameters to `dtype`; trained parameters keep their float32 values."""
    learning = {parameter: parameter.data for parameter in generator.parameters() if parameter.requires_grad}
    generator.cast(dtype)
    for parameter, value in learning.items():
        parameter.data = value
    for layer in generator.adapter_layers():
        use_mixed_precision_lora(layer)


def unbend(generator: TriplaneGenerator) -> None:
    """Zero the offset heads, so that a new adapter does not deform the grid."""
    for head in generator.heads.values():
        torch.nn.init.zeros_(head.fields.offset[-1].weight)
        if head.fields.offset[-1].bias is not None:
            torch.nn.init.zeros_(head.fields.offset[-1].bias)


def unfreeze_base(generator: TriplaneGenerator) -> None:
    """Train the base instead of the adapters, which stay zero and disabled."""
    generator.requires_grad_(False)
    for part in (
        generator.unet,
        generator.vae.decoder,
        generator.vae.post_quant_conv,
        *generator.heads.values(),
    ):
        part.requires_grad_(True)
    for layer in generator.adapter_layers():
        for name in layer.adapter_layer_names:
            getattr(layer, name).requires_grad_(False)
        if not isinstance(layer, PlaneLora):
            layer.merged_adapters.append(generator.active)
