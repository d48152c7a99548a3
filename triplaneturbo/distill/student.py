"""The student of a run: a model made ready to learn.

What does not learn is kept in the precision that is asked for, what learns in float32: adapters, the planes'
embedding and the heads, or, with "full" tuning, the U-Net and the decoder themselves. The optimiser never
sees a half.
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
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.groupnorm_layout import lay_out_for_training
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
) -> Student:
    """A student of any model.

    It begins with the model's own adapter, or with `adapter`. A new one, drawn from torch's seed, takes their
    place where the own one cannot be gone on with: with "lora" or "full" tuning, or another `config`.

    Args:
        folder: the model's, with its configuration and adapter.
        base: folder of its base; None: `folder`.
        device: where it learns.
        frozen: precision of what does not learn: float32, float16 or bfloat16. Beside float16 the loss is to
            be scaled (`distill.scaling`).
        tuning: "peta"; "lora", one pair for all planes; or "full", the base itself and no pairs.
        adapter: file of an adapter of this model to begin with.
        checkpointing: see `TriplaneGenerator.recompute`.
        texts_aside: the text encoder works in the main memory.
        config: other ranks; None: the model's own.

    Raises:
        UserError: a part is missing, broken or does not fit the others.
    """
    own = GeneratorConfig.load(folder)
    if tuning == "peta" and not own.plane_lora and config is None:
        raise UserError(f"The adapter of {folder} is the same for all planes: choose lora tuning.")
    wanted = replace(config or own, plane_lora=tuning != "lora", untrained_seed=own.untrained_seed)
    goes_on = tuning != "full" and _adapter(wanted) == _adapter(own)
    if adapter is not None and tuning == "full":
        raise UserError("Full tuning has no adapter to begin with: choose peta or lora tuning.")
    new = adapter is None and not (goes_on and (folder / ADAPTER_NAME).is_file())
    generator, trained = load_generator(folder, wanted, base=base, adapter=adapter, encoder=True, new=new)
    if new:
        unbend(generator)
    text = load_text(base or folder, None if trained else own.untrained_seed)
    return around(
        generator, text, device, frozen=frozen, tuning=tuning, checkpointing=checkpointing,
        text_on_cpu=text_on_cpu,
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
) -> Student:
    """A student around a generator with live adapters, both moved to `device`; see `load_student`."""
    if tuning == "full":
        unfreeze_base(generator)
    # Nothing teaches the offset: renderings show the grid as it is.
    for head in generator.heads.values():
        head.fields.offset.requires_grad_(False)
    lay_out_for_training(generator)
    if device.type == "cpu":
        generator.vae.set_attn_processor(AttnProcessor())  # there faster backwards than the fused one
    generator.to(device)
    half = frozen != torch.float32
    if half:
        cast_frozen(generator, frozen)
    if checkpointing:
        generator.recompute()
    # As for generating: a CPU embeds few texts, and in float32.
    if not text_on_cpu:
        text.model.to(device, frozen if device.type == "cuda" else torch.float32)
    return Student(generator, MergedLora(generator, live=half), TextEmbeddingCache(text.embed, device))


def _adapter(config: GeneratorConfig) -> GeneratorConfig:
    """What a configuration says of an adapter's tensors, and nothing of how the model is used."""
    return replace(config, grid_resolution=1, steps=1, world=False, untrained_seed=None)


def cast_frozen(generator: TriplaneGenerator, dtype: torch.dtype) -> None:
    """Turn what does not learn into `dtype`; what learns stays in float32, to the bit, and follows."""
    learning = {parameter: parameter.data for parameter in generator.parameters() if parameter.requires_grad}
    generator.cast(dtype)
    for parameter, value in learning.items():
        parameter.data = value
    for layer in generator.adapter_layers():
        use_mixed_precision_lora(layer)


def unbend(generator: TriplaneGenerator) -> None:
    """Have the fields of a new adapter leave the grid as it is."""
    for head in generator.heads.values():
        torch.nn.init.zeros_(head.fields.offset[-1].weight)
        if head.fields.offset[-1].bias is not None:
            torch.nn.init.zeros_(head.fields.offset[-1].bias)


def unfreeze_base(generator: TriplaneGenerator) -> None:
    """Have the base learn and not the adapter's pairs, which stay zero and out of the way."""
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
