"""What each part of a run takes of memory: the real modules on the meta device, run and counted there.

Counts are for one prompt and grow with their number. Kernels' own workspaces are not in them; plan.py adds
what is to be left for these.
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
# Stable Diffusion 1.5's text encoder, which RichDreamer has beside it.
TEXT_1_5 = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_PIXEL = 700  # bytes that a pixel's triangle, corners and their gradients take in `see_shape`, for one view


@dataclass(frozen=True)
class ModelSizes:
    """A model's sizes: the configurations of its base as JSON, and its own."""

    unet: str
    vae: str
    text: str
    config: GeneratorConfig

    @classmethod
    def read(cls, folder: Path, base: Path | None = None) -> ModelSizes:
        """Of a model's folder, whose base may lie elsewhere.

        Raises:
            UserError: a configuration is missing or broken.
        """
        texts = []
        for part in ("unet", "vae", "text_encoder"):
            path = (base or folder) / part / "config.json"
            try:
                texts.append(json.dumps(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError) as error:
                raise UserError(f"Cannot read {path} ({error}); restore it from where it came.") from None
        unet, vae, text = texts
        return cls(unet, vae, text, GeneratorConfig.load(folder))

    @classmethod
    def of(cls, unet: dict, vae: dict, text: dict, config: GeneratorConfig) -> ModelSizes:
        """Of configurations at hand."""
        return cls(json.dumps(unet), json.dumps(vae), json.dumps(text), config)


@dataclass(frozen=True)
class Student:
    """What a student takes, in bytes.

    Attributes:
        unet, vae: what of them is frozen; text: their text encoder.
        learning: what learns, once.
        shapes: of the tensors that learn.
        folded: weights that adapters are folded into, and their gradients.
        held: activations that the backward pass needs, of one prompt.
        backward: the most that is alive in the backward pass, these among it.
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
    """What a teacher takes, in bytes: its weights, its own text encoder's, and the most while it is asked."""

    weights: int = 0
    text: int = 0
    working: int = 0


@dataclass(frozen=True)
class RenderingMemory:
    """What renderings take, in bytes of one prompt: until the backward pass, and the most in that."""

    held: int
    backward: int


@lru_cache(maxsize=32)
def student(
    facts: ModelSizes, config: GeneratorConfig, tuning: Tuning, frozen: torch.dtype, checkpointing: bool
) -> Student:
    """Count a student with adapters of `config` in one step that learns."""
    with META:
        generator = TriplaneGenerator(_unet(facts), _vae(facts), DDIMScheduler(), config)
        text = text_model(json.loads(facts.text)).to(dtype=frozen)
        words_size = size_of(text)
        made = around(
            generator,
            TextEncoder(None, text),
            META,
            frozen=frozen,
            tuning=tuning,
            checkpointing=checkpointing,
        )
        side = config.latent_size
        latents = torch.empty(1, PLANES, 4, side, side)
        words = torch.empty(1, WORDS, _width(facts))
        learning = [p for p in generator.parameters() if p.requires_grad]
        for p in learning:
            p.grad = torch.empty_like(p)  # counted apart
        sizes = size_of(generator.unet, learning=False), size_of(generator.vae, learning=False)
        learns = size_of(generator, learning=True)
        with fused_attention(), MemoryCounter() as live:
            made.folded.fold()
            folded = live.now
            planes = generator.decode(generator.predict(latents, torch.empty(()), words))
            held = live.now - folded
            live.reset()
            planes.backward(torch.empty_like(planes))
            backward = live.peak - folded
    shapes = tuple(tuple(p.shape) for p in learning)
    # Of what was folded the gradients grow in the backward pass: a second time as much.
    return Student(*sizes, words_size, learns, shapes, 2 * folded, held, max(held, backward - folded))


@lru_cache(maxsize=32)
def base(facts: ModelSizes, frozen: torch.dtype) -> int:
    """Bytes of the base's U-Net, where it is not the student's own."""
    with META:
        return size_of(nn.Module.to(_unet(facts), frozen))


@lru_cache(maxsize=32)
def teacher(
    name: str, facts: ModelSizes, frozen: torch.dtype, side: int, picture: int, view_by_view: bool
) -> TeacherMemory:
    """Count a teacher that is shown four views of side^2; `picture`: the side that "sd" encodes.

    Closed forms take next to nothing.
    """
    with META:
        cameras = Cameras(torch.empty(VIEWS, 4, 4), torch.empty(VIEWS))
        scenes = SceneBatch(["a"], cameras, VIEWS, torch.empty(1, 3))
        text = 0
        asked: Any
        if name == "mvdream":
            unet = nn.Module.to(UNet2DConditionModel(**mvdream.UNET), frozen)
            asked = MVDream(
                unet, nn.Module.to(AutoencoderKL(**mvdream.VAE), frozen), _embed(mvdream.UNET, frozen)
            )
        elif name == "richdreamer":
            unet = nn.Module.to(UNet2DConditionModel(**richdreamer.UNET), frozen)
            asked = RichDreamer(unet, _embed(richdreamer.UNET, frozen))
            text = size_of(text_model(TEXT_1_5).to(frozen))
        elif name == "sd":
            unet, vae = (nn.Module.to(network, frozen) for network in (_unet(facts), _vae(facts)))
            asked = StableDiffusion(
                lambda: nullcontext(unet), vae, DDIMScheduler(), _embed(dict(unet.config), frozen), picture
            )
        else:
            return TeacherMemory()
        for network in asked.networks:
            network.requires_grad_(False)
        if not isinstance(asked, RichDreamer):
            asked.view_by_view = view_by_view
        seen = Renderings(
            *(torch.empty(1, VIEWS, side, side, *more, requires_grad=True) for more in ((3,), (), (3,), ())),
        )
        with fused_attention(), MemoryCounter() as live:
            z = asked.encode(seen, scenes, torch.Generator())
            with torch.no_grad():
                told = asked.condition(seen, scenes)
                asked.predict(z.detach(), torch.empty(1, dtype=torch.int64), told, True)
            z.backward(torch.empty_like(z))
    # Stable Diffusion's networks are the student's own.
    return TeacherMemory(0 if name == "sd" else size_of(*asked.networks), text, live.peak)


@lru_cache(maxsize=32)
def rendering(
    facts: ModelSizes, settings_key: tuple[int, int, int, int], renderings: tuple[str, ...]
) -> RenderingMemory:
    """Count both renderings where everything is covered; key: size, stride, surface stride, nodes."""
    size, stride, surface_stride, nodes = settings_key
    side = facts.config.latent_size * 2 ** (len(json.loads(facts.vae)["block_out_channels"]) - 1)
    rays, pixels = VIEWS * (size // stride) ** 2, VIEWS * (size // surface_stride) ** 2
    with META:
        fields = FieldDecoder(facts.config)
        for p in fields.parameters():
            p.grad = torch.empty_like(p)
        planes = torch.empty(1, PLANES, facts.config.plane_channels, side, side, requires_grad=True)
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
    """A text encoder of some sizes, where torch makes things now."""
    return CLIPTextModel(CLIPTextConfig.from_dict(config)).eval().requires_grad_(False)


def key(settings: Settings) -> tuple[int, int, int, int]:
    """What of the settings `rendering` needs."""
    return settings.size, settings.stride, settings.surface_stride, settings.nodes


def _unet(facts: ModelSizes) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_config(json.loads(facts.unet))


def _vae(facts: ModelSizes) -> AutoencoderKL:
    return AutoencoderKL.from_config(json.loads(facts.vae))


def _width(facts: ModelSizes) -> int:
    return json.loads(facts.unet)["cross_attention_dim"]


def _embed(unet: dict[str, Any], dtype: torch.dtype):
    def embed(texts: list[str]) -> Tensor:
        return torch.empty(len(texts), WORDS, unet["cross_attention_dim"], dtype=dtype, device=META)

    return embed
