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
from torch import Tensor
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
class LoraMemory:
    """Memory of a LoRA of a teacher's U-Net, in bytes.

    Attributes:
        weights: its weights.
        training: peak of one iteration that trains it.
    """

    weights: int = 0
    training: int = 0


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
def lora_memory(name: str, model_sizes: ModelSizes, dtype: torch.dtype, side: int, rank: int) -> LoraMemory:
    """Count a LoRA of a teacher that reads four views of side^2 pixels.

    Returns:
        The memory; zeros for a teacher without a U-Net.
    """
    with META:
        probed = _Probed.of(name, model_sizes, dtype, side)
        if probed is None or not isinstance(probed.teacher, UNetTeacher):
            return LoraMemory()
        critic = LoraCritic(probed.teacher, rank)
        for p in critic.parameters:
            p.grad = torch.empty_like(p)  # counted separately
        z = probed.encoded().detach()
        with fused_attention(), MemoryCounter() as live:
            probed.train(critic, z)
    return LoraMemory(size_of(*critic.layers, learning=True), live.peak)


@lru_cache(maxsize=32)
def operations(name: str, model_sizes: ModelSizes, dtype: torch.dtype, side: int, rank: int) -> Operations:
    """Count a teacher that reads four views of side^2 pixels, and the training of a LoRA.

    Returns:
        The arithmetic; zeros for a teacher without a network.
    """
    with META:
        probed = _Probed.of(name, model_sizes, dtype, side)
        if probed is None:
            return Operations()
        with FlopCounterMode(display=False) as encoding:
            z = probed.encoded()
            z.backward(torch.empty_like(z))
        z = z.detach()
        with FlopCounterMode(display=False) as prediction, torch.no_grad():
            probed.predict(probed.teacher, z)
        with FlopCounterMode(display=False) as training:
            if isinstance(probed.teacher, UNetTeacher):
                probed.train(LoraCritic(probed.teacher, rank), z)
    return Operations(*(counter.get_total_flops() for counter in (encoding, prediction, training)))


@dataclass(frozen=True)
class _Probed:
    """A teacher on the meta device, with the renderings of one scene."""

    teacher: Any
    renderings: Renderings
    scenes: SceneBatch

    @classmethod
    def of(cls, name: str, model_sizes: ModelSizes, dtype: torch.dtype, side: int) -> _Probed | None:
        """Create the teacher in a refinement; None if it has no network."""
        probe = TEACHERS[name].loader().probe
        if probe is None:
            return None
        teacher: Any = probe(json.loads(model_sizes.unet), json.loads(model_sizes.vae), dtype).teacher
        teacher.refining = True
        for network in teacher.networks:
            network.requires_grad_(False)
        cameras = Cameras(torch.empty(VIEWS, 4, 4), torch.empty(VIEWS))
        scenes = SceneBatch(["a"], cameras, VIEWS, torch.empty(1, 3))
        renderings = Renderings(
            *(torch.empty(1, VIEWS, side, side, *more, requires_grad=True) for more in ((3,), (), (3,), ())),
        )
        return cls(teacher, renderings, scenes)

    def encoded(self) -> Tensor:
        z: Tensor = self.teacher.encode(self.renderings, self.scenes, torch.Generator())
        return z

    def predict(self, teacher: Any, z: Tensor) -> Tensor:
        condition = self.teacher.condition(self.renderings, self.scenes)
        noise: Tensor = teacher.predict(z, torch.empty(1, dtype=torch.int64), condition, False)[0]
        return noise

    def train(self, critic: LoraCritic, z: Tensor) -> None:
        noise = self.predict(critic.teacher, z)
        noise.backward(torch.empty_like(noise))
