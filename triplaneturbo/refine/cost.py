"""Memory and arithmetic of a refinement's networks, counted by running the real modules on the meta device.

See distill/memory.py, which counts the parts that training has, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

import torch
from diffusers import DDIMScheduler
from torch.utils.flop_counter import FlopCounterMode

from triplaneturbo.distill.critic import LoraCritic, UNetTeacher
from triplaneturbo.distill.lora_memory import train_lora
from triplaneturbo.distill.memory import (
    MemoryCounter,
    ModelSizes,
    ProbedTeacher,
    base_networks,
    fused_attention,
    size_of,
    text_model,
)
from triplaneturbo.models.peta import PLANES
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.teachers.loader import META, WORDS


@dataclass(frozen=True)
class ModelMemory:
    """Memory of a model that is loaded for generation, in bytes.

    Attributes:
        weights, text: weights of the generator without the VAE's encoder, and of the text encoder.
        encoder: weights of the VAE's encoder.
        working: peak of generating one field.
    """

    weights: int
    text: int
    encoder: int
    working: int


@dataclass(frozen=True)
class Operations:
    """Arithmetic of a teacher's network in a refinement.

    Attributes:
        encoding: operations that encode the renderings of a scene, and their backward pass.
        prediction: operations of one prediction without guidance.
        training: operations of one iteration that trains a LoRA, without the encoding; 0: it has none.
    """

    encoding: float = 0
    prediction: float = 0
    training: float = 0


@lru_cache(maxsize=8)
def model_memory(model_sizes: ModelSizes, dtype: torch.dtype, text_dtype: torch.dtype) -> ModelMemory:
    """Count a model with weights of `dtype`, whose text encoder has `text_dtype`."""
    config = model_sizes.config
    with META, torch.no_grad():
        unet, vae = base_networks(model_sizes)
        encoder = (vae.encoder, vae.quant_conv)
        vae.encoder = vae.quant_conv = None
        generator = TriplaneGenerator(unet, vae, DDIMScheduler(), config).eval()
        for module in (generator, *encoder):
            module.to(dtype)
        latents = torch.empty(1, PLANES, 4, config.latent_size, config.latent_size)
        text_embeddings = torch.empty(1, WORDS, unet.config["cross_attention_dim"])
        with fused_attention(), MemoryCounter() as live:
            generator.decode(generator.predict(latents, torch.empty(()), text_embeddings))
        text = text_model(json.loads(model_sizes.text)).to(dtype=text_dtype)
    return ModelMemory(size_of(generator), size_of(text), size_of(*encoder), live.peak)


@lru_cache(maxsize=32)
def operations(name: str, model_sizes: ModelSizes, dtype: torch.dtype, side: int, rank: int) -> Operations:
    """Count a teacher that reads four views of side^2 pixels, and the training of a LoRA.

    Returns:
        The arithmetic; zeros for a teacher without a network.
    """
    with META:
        probed = ProbedTeacher.of(name, model_sizes, dtype, side, refining=True)
        if probed is None:
            return Operations()
        with FlopCounterMode(display=False) as encoding:
            z = probed.encoded()
            z.backward(torch.empty_like(z))
        z = z.detach()
        with FlopCounterMode(display=False) as prediction, torch.no_grad():
            probed.predict(probed.teacher, z, probed.condition())
        with FlopCounterMode(display=False) as training:
            if isinstance(probed.teacher, UNetTeacher):
                train_lora(probed, LoraCritic(probed.teacher, rank), z)
    return Operations(*(counter.get_total_flops() for counter in (encoding, prediction, training)))
