"""Memory of each part of a training run, counted by running the real modules on the meta device.

Tensors on the meta device have no data, so counting costs neither memory nor arithmetic and works on any
machine. Activations are counted for one prompt and scale with the batch. Workspaces of kernels are not
counted; the plan adds a margin for them (memory_plan.py).
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextConfig, CLIPTextModel

from triplaneturbo.distill.settings import Settings, Tuning
from triplaneturbo.distill.student import around
from triplaneturbo.errors import UserError
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.peta import PLANES
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.grid_renderer import eikonal, render_grid
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.representations.triplane import FieldDecoder
from triplaneturbo.representations.triplane_rendering import CHUNK
from triplaneturbo.teachers.loader import META, WORDS, MetaTeacher
from triplaneturbo.teachers.multi_view import VIEWS
from triplaneturbo.teachers.registry import TEACHERS

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

    @property
    def plane_size(self) -> int:
        """Height and width of a plane."""
        return self.config.plane_size(len(json.loads(self.vae)["block_out_channels"]))


@dataclass(frozen=True)
class StudentMemory:
    """Memory of a student in bytes.

    Attributes:
        unet, vae: frozen weights.
        text: text encoder.
        learning: trainable parameters (without gradients and optimizer state).
        shapes: shapes of the trainable parameters.
        merged: weights with merged adapters, and their gradients.
        held: activations kept for the backward pass, for one prompt.
        backward: peak of the backward pass including `held`, for one prompt.
    """

    unet: int
    vae: int
    text: int
    learning: int
    shapes: tuple[tuple[int, ...], ...]
    merged: int
    held: int
    backward: int


@dataclass(frozen=True)
class TeacherMemory:
    """Memory of a teacher in bytes.

    Attributes:
        weights: frozen weights.
        text: its own text encoder.
        working: peak of one evaluation.
        held: activations of the encoder, which an evaluation keeps for its backward pass.
    """

    weights: int = 0
    text: int = 0
    working: int = 0
    held: int = 0


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
        unet, vae = base_networks(model_sizes)
        generator = TriplaneGenerator(unet, vae, DDIMScheduler(), config)
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
        text_embeddings = torch.empty(1, WORDS, unet.config["cross_attention_dim"])
        learning = [p for p in generator.parameters() if p.requires_grad]
        for p in learning:
            p.grad = torch.empty_like(p)  # counted separately
        sizes = size_of(generator.unet, learning=False), size_of(generator.vae, learning=False)
        learns = size_of(generator, learning=True)
        with fused_attention(), MemoryCounter() as live:
            trained.merged_lora.merge()
            merged = live.now
            planes = generator.decode(generator.predict(latents, torch.empty(()), text_embeddings))
            held = live.now - merged
            live.reset()
            planes.backward(torch.empty_like(planes))
            backward = live.peak - merged
    shapes = tuple(tuple(p.shape) for p in learning)
    # Merged weights are counted twice: their gradients appear in the backward pass.
    return StudentMemory(*sizes, text_size, learns, shapes, 2 * merged, held, max(held, backward - merged))


@lru_cache(maxsize=32)
def separate_base(model_sizes: ModelSizes, frozen: torch.dtype) -> int:
    """Count a separate U-Net of the base."""
    with META:
        return size_of(nn.Module.to(base_networks(model_sizes)[0], frozen))


@dataclass(frozen=True)
class ProbedTeacher:
    """A teacher on the meta device, with the renderings of one scene.

    Attributes:
        probe: the teacher, and what of it is shared.
        teacher: the teacher itself.
        renderings: of four views.
        scenes: the scene.
    """

    probe: MetaTeacher
    teacher: Any
    renderings: Renderings
    scenes: SceneBatch

    @classmethod
    def of(
        cls, name: str, model_sizes: ModelSizes, dtype: torch.dtype, side: int, refining: bool
    ) -> ProbedTeacher | None:
        """Create a teacher that reads side^2 pixels; None if it has no network. Call it under `META`."""
        create = TEACHERS[name].loader().probe
        if create is None:
            return None
        probe = create(json.loads(model_sizes.unet), json.loads(model_sizes.vae), dtype)
        module: Any = probe.teacher
        for network in module.networks:
            network.requires_grad_(False)
        module.refining = refining
        cameras = Cameras(torch.empty(VIEWS, 4, 4), torch.empty(VIEWS))
        scenes = SceneBatch(["a"], cameras, VIEWS, torch.empty(1, 3))
        renderings = Renderings(
            *(torch.empty(1, VIEWS, side, side, *more, requires_grad=True) for more in ((3,), (), (3,), ())),
        )
        return cls(probe, module, renderings, scenes)

    def encoded(self) -> Tensor:
        """Encode the renderings."""
        z: Tensor = self.teacher.encode(self.renderings, self.scenes, torch.Generator())
        return z

    def condition(self) -> Any:
        """Return the teacher's conditioning."""
        return self.teacher.condition(self.renderings, self.scenes)

    def predict(self, teacher: Any, z: Tensor, condition: Any, guided: bool = False) -> Tensor:
        """Predict the noise with the teacher or a copy of it."""
        noise: Tensor = teacher.predict(z, torch.empty(1, dtype=torch.int64), condition, guided)[0]
        return noise


@lru_cache(maxsize=32)
def teacher(
    name: str,
    model_sizes: ModelSizes,
    frozen: torch.dtype,
    side: int,
    view_by_view: bool,
    refining: bool = False,
) -> TeacherMemory:
    """Count a teacher that reads four views of side^2 pixels; for `refining` see `TeacherContext`."""
    with META:
        probed = ProbedTeacher.of(name, model_sizes, frozen, side, refining)
        if probed is None:
            return TeacherMemory()
        if hasattr(probed.teacher, "view_by_view"):
            probed.teacher.view_by_view = view_by_view
        with fused_attention(), MemoryCounter() as live:
            z = probed.encoded()
            held = live.now
            with torch.no_grad():
                condition = probed.condition()
                probed.predict(probed.teacher, z.detach(), condition, guided=True)
            z.backward(torch.empty_like(z))
    probe = probed.probe
    weights = 0 if probe.shared else size_of(*probed.teacher.networks)
    return TeacherMemory(weights, 0 if probe.text is None else size_of(probe.text), live.peak, held)


def rendering(model_sizes: ModelSizes, settings: Settings, views: int = VIEWS) -> RenderingMemory:
    """Count the renderings of one prompt for full coverage."""
    return _rendering(
        model_sizes, settings.size, settings.stride, settings.surface_stride, settings.nodes,
        settings.renderings, views,
    )  # fmt: skip


@lru_cache(maxsize=32)
def _rendering(
    model_sizes: ModelSizes,
    size: int,
    stride: int,
    surface_stride: int,
    nodes: int,
    names: tuple[str, ...],
    views: int,
) -> RenderingMemory:
    side = model_sizes.plane_size
    rays, pixels = views * (size // stride) ** 2, views * (size // surface_stride) ** 2
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
                if name in names:
                    for part in torch.empty(count, 3).split(CHUNK):
                        # Without a name, since the colours of a chunk are freed at once.
                        total += checkpoint(fields.rgb, planes, part[None], use_reentrant=False).sum()
            held = live.now
            live.reset()
            total.backward()
    shape = _PIXEL * pixels // views if "surface" in names else 0
    return RenderingMemory(held, max(live.peak, held + shape))


class MemoryCounter(TorchDispatchMode):
    """Context that counts the bytes of all tensors created in it that are still alive, on any device.

    Attributes:
        now: live bytes, without tensors created before.
        peak: maximum of `now` since entering the context or since `reset`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}  # bytes by storage address; 0 for storages created before

    def reset(self) -> None:
        """Reset the peak to the current value."""
        self.peak = self.now

    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count its outputs."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._note(leaf, from_before=True)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf, from_before=False)
        return out

    def _note(self, tensor: Tensor, from_before: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = size = 0 if from_before else storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key).atexit = False

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Context in which attention on the meta device takes as much memory as a GPU's fused kernel.

    The default implementation would count the attention scores, several times 0.4 GB at full size. A torch
    function mode would not apply to checkpointed recomputation. Other devices are unaffected.
    """
    plain = F.scaled_dot_product_attention

    def stand_in(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if query.is_meta:
            return _Fused.apply(query, key, value)
        return plain(query, key, value, *args, **kwargs)

    F.scaled_dot_product_attention = stand_in
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


class _Fused(torch.autograd.Function):
    """Allocates the output and, for the backward pass, one number per query and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(part) for part in ctx.saved_tensors[:3])


def size_of(*modules: nn.Module, learning: bool | None = None) -> int:
    """Return the bytes of the parameters and buffers of modules, counting shared tensors once.

    Args:
        learning: True for trainable parameters only, False for everything else, None for all.
    """
    tensors = {id(p): p for module in modules for p in [*module.parameters(), *module.buffers()]}
    return sum(
        p.numel() * p.element_size()
        for p in tensors.values()
        if learning is None or (isinstance(p, nn.Parameter) and p.requires_grad) == learning
    )


def base_networks(model_sizes: ModelSizes) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """Create the base's U-Net and VAE on torch's current default device."""
    unet, vae = json.loads(model_sizes.unet), json.loads(model_sizes.vae)
    return UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(vae)


def text_model(config: dict[str, Any]) -> CLIPTextModel:
    """Create a text encoder on torch's current default device."""
    return CLIPTextModel(CLIPTextConfig.from_dict(config)).eval().requires_grad_(False)
