"""Memory and arithmetic of a refinement's networks, counted by running the real modules on the meta device.

See distill/memory.py, which counts the parts that training has, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch.utils.flop_counter import FlopCounterMode

from triplaneturbo.distill.critic import LoraCritic, UNetTeacher
from triplaneturbo.distill.memory import (
    MemoryCounter,
    ModelSizes,
    base_networks,
    fused_attention,
    size_of,
    text_model,
)
from triplaneturbo.models.peta import PLANES
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.loader import META, WORDS
from triplaneturbo.teachers.multi_view import VIEWS
from triplaneturbo.teachers.registry import TEACHERS


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
class NetworkCost:
    """What a teacher's network takes in a refinement.

    Attributes:
        lora: bytes of a LoRA's weights.
        path: peak bytes of one iteration that trains the LoRA.
        encoding: operations that encode the renderings of a scene, and their backward pass.
        prediction: operations of one prediction without guidance.
        path_prediction: operations of one iteration that trains the LoRA, without the encoding.
    """

    lora: int
    path: int
    encoding: float
    prediction: float
    path_prediction: float


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
def network_cost(name: str, model_sizes: ModelSizes, dtype: torch.dtype, side: int, rank: int) -> NetworkCost:
    """Count a teacher that reads four views of side^2 pixels, and a LoRA of its U-Net.

    Returns:
        The cost; zeros for a teacher without a network.
    """
    probe = TEACHERS[name].loader().probe
    if probe is None:
        return NetworkCost(0, 0, 0, 0, 0)
    with META:
        cameras = Cameras(torch.empty(VIEWS, 4, 4), torch.empty(VIEWS))
        scenes = SceneBatch(["a"], cameras, VIEWS, torch.empty(1, 3))
        module: Any = probe(json.loads(model_sizes.unet), json.loads(model_sizes.vae), dtype).teacher
        module.refining = True
        for network in module.networks:
            network.requires_grad_(False)
        renderings = Renderings(
            *(torch.empty(1, VIEWS, side, side, *more, requires_grad=True) for more in ((3,), (), (3,), ())),
        )
        with FlopCounterMode(display=False) as encoding:
            z = module.encode(renderings, scenes, torch.Generator())
            z.backward(torch.empty_like(z))
        z, times = z.detach(), torch.empty(1, dtype=torch.int64)
        condition = module.condition(renderings, scenes)
        with FlopCounterMode(display=False) as prediction, torch.no_grad():
            module.predict(z, times, condition, False)
        assert isinstance(module, UNetTeacher)
        critic = LoraCritic(module, rank)
        for p in critic.parameters:
            p.grad = torch.empty_like(p)  # counted separately

        def train() -> None:
            noise, _ = critic.teacher.predict(z, times, condition, False)
            noise.backward(torch.empty_like(noise))

        with fused_attention(), MemoryCounter() as live:
            train()
        with FlopCounterMode(display=False) as training:
            train()
    operations = (counter.get_total_flops() for counter in (encoding, prediction, training))
    return NetworkCost(size_of(*critic.layers, learning=True), live.peak, *operations)
