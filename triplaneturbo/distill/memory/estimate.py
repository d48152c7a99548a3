"""Memory of each part of a run, counted by running the real modules on the meta device.

Activations are counted for one prompt and scale with the batch. Kernel workspaces are not included; plan.py
adds a margin for them.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextConfig, CLIPTextModel

from triplaneturbo.distill.memory.counting import MemoryCounter, fused_attention, size_of
from triplaneturbo.distill.rendering import CHUNK
from triplaneturbo.distill.settings import Settings, Tuning
from triplaneturbo.distill.student import around
from triplaneturbo.errors import UserError
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.peta import PLANES
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.grid_renderer import eikonal, render_grid
from triplaneturbo.representations.triplane import FieldDecoder
from triplaneturbo.teachers import mvdream, richdreamer
from triplaneturbo.teachers.base import Renderings, SceneBatch
from triplaneturbo.teachers.multi_view import VIEWS
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.teachers.richdreamer import RichDreamer
from triplaneturbo.teachers.stable_diffusion import StableDiffusion

META = torch.device("meta")
WORDS = 77
# Configuration of Stable Diffusion 1.5's text encoder, which RichDreamer uses.
TEXT_1_5 = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_PIXEL = 700  # bytes per pixel and view of triangles, corners and gradients in `surface_geometry`


@dataclass(frozen=True)
class ModelSizes:
    """Configurations that determine a model's sizes: those of its base as JSON, and its own."""

    unet: str
    vae: str
    text: str
    config: GeneratorConfig

    @classmethod
    def read(cls, folder: Path, base: Path | None = None) -> ModelSizes:
        """Read the configurations of a model folder and its base.

        Args:
            folder: model folder.
            base: folder of the base; None for `folder`.

        Raises:
            UserError: if a configuration is missing or broken.
        """
        texts = []
        for part in ("unet", "vae", "text_encoder"):
            path = (base or folder) / part / "config.json"
            try:
                texts.append(json.dumps(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError) as error:
                raise UserError(f"Cannot read {path} ({error}): download the model again.") from None
        unet, vae, text = texts
        return cls(unet, vae, text, GeneratorConfig.load(folder))

    @classmethod
    def of(cls, unet: dict, vae: dict, text: dict, config: GeneratorConfig) -> ModelSizes:
        """Create from configuration dictionaries."""
        return cls(json.dumps(unet), json.dumps(vae), json.dumps(text), config)


@dataclass(frozen=True)
class StudentMemory:
    """Memory of a student in bytes.

    Attributes:
        unet, vae: frozen weights.
        text: text encoder.
        learning: trainable parameters (without gradients and optimizer state).
        shapes: shapes of the trainable parameters.
        folded: weights with merged adapters, and their gradients.
        held: activations kept for the backward pass, for one prompt.
        backward: peak of the backward pass including `held`, for one prompt.
    """

    unet: int
    vae: int
    text: int
    learning: int
    shapes: tuple[tuple[int, ...], ...]
    folded: int
    held: int
    backward: int


@dataclass(frozen=True)
class TeacherMemory:
    """Memory of a teacher in bytes: weights, its own text encoder, and the peak of one evaluation."""

    weights: int = 0
    text: int = 0
    working: int = 0


@dataclass(frozen=True)
class RenderingMemory:
    """Memory of the renderings of one prompt in bytes: kept for the backward pass, and its peak."""

    held: int
    backward: int


@lru_cache(maxsize=32)
def student(
    model_sizes: ModelSizes, config: GeneratorConfig, tuning: Tuning, frozen: torch.dtype, checkpointing: bool
) -> StudentMemory:
    """Count a student with adapters of `config` in one training step."""
    with META:
        generator = TriplaneGenerator(_unet(model_sizes), _vae(model_sizes), DDIMScheduler(), config)
        text = text_model(json.loads(model_sizes.text)).to(dtype=frozen)
        text_size = size_of(text)
        trained = around(
            generator,
            TextEncoder(None, text),
            META,
            frozen=frozen,
            tuning=tuning,
            checkpointing=checkpointing,
        )
        side = config.latent_size
        latents = torch.empty(1, PLANES, 4, side, side)
        text_embeddings = torch.empty(1, WORDS, _width(model_sizes))
        learning = [p for p in generator.parameters() if p.requires_grad]
        for p in learning:
            p.grad = torch.empty_like(p)  # counted separately
        sizes = size_of(generator.unet, learning=False), size_of(generator.vae, learning=False)
        learns = size_of(generator, learning=True)
        with fused_attention(), MemoryCounter() as live:
            trained.folded.fold()
            folded = live.now
            planes = generator.decode(generator.predict(latents, torch.empty(()), text_embeddings))
            held = live.now - folded
            live.reset()
            planes.backward(torch.empty_like(planes))
            backward = live.peak - folded
    shapes = tuple(tuple(p.shape) for p in learning)
    # Merged weights are counted twice: their gradients appear in the backward pass.
    return StudentMemory(*sizes, text_size, learns, shapes, 2 * folded, held, max(held, backward - folded))


@lru_cache(maxsize=32)
def base(model_sizes: ModelSizes, frozen: torch.dtype) -> int:
    """Count a separate U-Net of the base."""
    with META:
        return size_of(nn.Module.to(_unet(model_sizes), frozen))


@lru_cache(maxsize=32)
def teacher(
    name: str, model_sizes: ModelSizes, frozen: torch.dtype, side: int, picture: int, view_by_view: bool
) -> TeacherMemory:
    """Count a teacher that reads four views of side^2 pixels; closed-form teachers count as 0.

    Args:
        picture: image size of the "sd" teacher's VAE encoder.
    """
    with META:
        cameras = Cameras(torch.empty(VIEWS, 4, 4), torch.empty(VIEWS))
        scenes = SceneBatch(["a"], cameras, VIEWS, torch.empty(1, 3))
        text = 0
        module: Any
        if name == "mvdream":
            unet = nn.Module.to(UNet2DConditionModel(**mvdream.UNET), frozen)
            module = MVDream(
                unet, nn.Module.to(AutoencoderKL(**mvdream.VAE), frozen), _embed(mvdream.UNET, frozen)
            )
        elif name == "richdreamer":
            unet = nn.Module.to(UNet2DConditionModel(**richdreamer.UNET), frozen)
            module = RichDreamer(unet, _embed(richdreamer.UNET, frozen))
            text = size_of(text_model(TEXT_1_5).to(frozen))
        elif name == "sd":
            unet, vae = (nn.Module.to(network, frozen) for network in (_unet(model_sizes), _vae(model_sizes)))
            module = StableDiffusion(
                lambda: nullcontext(unet), vae, DDIMScheduler(), _embed(dict(unet.config), frozen), picture
            )
        else:
            return TeacherMemory()
        for network in module.networks:
            network.requires_grad_(False)
        if not isinstance(module, RichDreamer):
            module.view_by_view = view_by_view
        seen = Renderings(
            *(torch.empty(1, VIEWS, side, side, *more, requires_grad=True) for more in ((3,), (), (3,), ())),
        )
        with fused_attention(), MemoryCounter() as live:
            z = module.encode(seen, scenes, torch.Generator())
            with torch.no_grad():
                condition = module.condition(seen, scenes)
                module.predict(z.detach(), torch.empty(1, dtype=torch.int64), condition, True)
            z.backward(torch.empty_like(z))
    # Stable Diffusion shares the student's networks.
    return TeacherMemory(0 if name == "sd" else size_of(*module.networks), text, live.peak)


@lru_cache(maxsize=32)
def rendering(
    model_sizes: ModelSizes, settings_key: tuple[int, int, int, int], renderings: tuple[str, ...]
) -> RenderingMemory:
    """Count both renderings for full coverage; `settings_key` comes from `key`."""
    size, stride, surface_stride, nodes = settings_key
    side = model_sizes.config.latent_size * 2 ** (len(json.loads(model_sizes.vae)["block_out_channels"]) - 1)
    rays, pixels = VIEWS * (size // stride) ** 2, VIEWS * (size // surface_stride) ** 2
    with META:
        fields = FieldDecoder(model_sizes.config)
        for p in fields.parameters():
            p.grad = torch.empty_like(p)
        planes = torch.empty(1, PLANES, model_sizes.config.plane_channels, side, side, requires_grad=True)
        with MemoryCounter() as live:
            sdf = fields.sdf_lattice(planes, torch.empty(nodes))
            ends = torch.empty(1, rays, 3)
            view = render_grid(sdf, ends, ends, 100.0, nodes)
            total = view.opacity.sum() + view.depth.sum() + view.normal.sum() + eikonal(sdf).mean()
            for name, count in (("volume", rays), ("surface", pixels)):
                if name in renderings:
                    for part in torch.empty(count, 3).split(CHUNK):
                        points = part[None]
                        total = total + checkpoint(
                            fields.rgb, planes, points, use_reentrant=False
                        ).sum()  # fmt: skip
            held = live.now
            live.reset()
            total.backward()
    shape = _PIXEL * pixels // VIEWS if "surface" in renderings else 0
    return RenderingMemory(held, max(live.peak, held + shape))


def text_model(config: dict[str, Any]) -> CLIPTextModel:
    """Create a text encoder on torch's current default device."""
    return CLIPTextModel(CLIPTextConfig.from_dict(config)).eval().requires_grad_(False)


def key(settings: Settings) -> tuple[int, int, int, int]:
    """Return the settings that `rendering` depends on, as a hashable key."""
    return settings.size, settings.stride, settings.surface_stride, settings.nodes


def _unet(model_sizes: ModelSizes) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_config(json.loads(model_sizes.unet))


def _vae(model_sizes: ModelSizes) -> AutoencoderKL:
    return AutoencoderKL.from_config(json.loads(model_sizes.vae))


def _width(model_sizes: ModelSizes) -> int:
    return json.loads(model_sizes.unet)["cross_attention_dim"]


def _embed(unet: dict[str, Any], dtype: torch.dtype):
    def embed(texts: list[str]) -> Tensor:
        return torch.empty(len(texts), WORDS, unet["cross_attention_dim"], dtype=dtype, device=META)

    return embed
