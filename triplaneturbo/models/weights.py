"""Find, load, convert and save models.

A model is a folder:

    triplaneturbo.json                                       GeneratorConfig
    adapter.safetensors                                      the PETA weights, last convolution, field MLPs
    unet/ vae/ scheduler/ text_encoder/ tokenizer/           the base, in diffusers' layout

The base may live in another folder, shared by several adapters. Nothing here touches the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import ADAPTER_NAME, load_adapter, save_adapter
from triplaneturbo.models.config import CONFIG_NAME, GeneratorConfig
from triplaneturbo.models.released_checkpoint import infer_config, read_released
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.triplane_generator import TriplaneGenerator

BASE_PARTS = ("unet", "vae", "scheduler")
TEXT_PARTS = ("text_encoder", "tokenizer")


@dataclass(frozen=True)
class Model:
    """A generator with the words that it understands, and where it came from."""

    generator: TriplaneGenerator
    text: TextEncoder
    config: GeneratorConfig
    folder: Path
    trained: bool


def load_model(
    folder: Path,
    *,
    base: Path | None = None,
    adapter: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """Load a model for generating: adapters merged where they can be, weights on `device` in `dtype`.

    Args:
        folder: the model's folder.
        base: folder of the base; None: `folder` itself.
        adapter: file of the adapter, ours or a released one; None: `adapter.safetensors` in `folder`.

    Raises:
        UserError: a part is missing, broken or does not fit the others.
    """
    config = GeneratorConfig.load(folder)
    generator, trained = load_generator(folder, config, base=base, adapter=adapter)
    generator.merge()
    generator.to(device=device)
    generator.cast(dtype)
    text = load_text(base or folder, None if trained else config.untrained_seed)
    text.model.to(device=device, dtype=dtype if torch.device(device).type == "cuda" else torch.float32)
    return Model(generator.eval(), text, config, folder, trained)


def load_generator(
    folder: Path,
    config: GeneratorConfig,
    *,
    base: Path | None = None,
    adapter: Path | None = None,
    encoder: bool = False,
    new: bool = False,
) -> tuple[TriplaneGenerator, bool]:
    """The generator alone, float32 on the CPU, adapters live; and whether it was trained.

    Where the folder holds no weights and its configuration names a seed, the weights are drawn from that.

    Args:
        encoder: keep the VAE's encoder, which generating does not need.
        new: read no adapter, but draw one from torch's seed, for training.
    """
    base = base or folder
    _require(base, BASE_PARTS)
    trained = config.untrained_seed is None or adapter is not None or (folder / ADAPTER_NAME).exists()
    adapter = adapter or folder / ADAPTER_NAME
    if trained and not new and not adapter.is_file():
        raise UserError(f"There is no file {adapter}; restore it from where it came.")
    with _drawn_from(None if trained else config.untrained_seed):  # also what is loaded is drawn first
        unet, vae = load_base(base, trained)
        if not encoder:
            vae.encoder = None
            vae.quant_conv = None
        scheduler = DDIMScheduler.from_config(_read_json(base / "scheduler" / "scheduler_config.json"))
        generator = TriplaneGenerator(unet, vae, scheduler, config)
        if not trained:
            _enliven(generator)
    if trained and not new:
        load_adapter(generator, adapter)
    return generator, trained


def load_base(base: Path, trained: bool = True) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """The base's U-Net and VAE in float32 on the CPU, or, not `trained`, with weights drawn at random.

    Raises:
        UserError: one of them is missing or broken.
    """
    unet = _load_part(UNet2DConditionModel, base / "unet", trained)
    return unet, _load_part(AutoencoderKL, base / "vae", trained)


def convert_released(released: Path, base: Path, folder: Path) -> Path:
    """Turn a released `.pth` adapter into our folder layout (without copying the base); returns `folder`.

    Raises:
        UserError: the file or the base is missing, broken, or they do not belong together.
    """
    config = infer_config(read_released(released), released)
    generator, _ = load_generator(folder, config, base=base, adapter=released)
    save_adapter(generator, folder / ADAPTER_NAME)
    config.save(folder)
    return folder


def _require(folder: Path, parts: tuple[str, ...]) -> None:
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; give the path of a model's folder.")
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"{folder} holds no whole model: {' and '.join(missing)} missing; it should have the folders "
            f"{', '.join(BASE_PARTS + TEXT_PARTS)} and the files {CONFIG_NAME} and {ADAPTER_NAME}."
        )


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error}); restore it from where it came.") from None


@contextmanager
def _drawn_from(seed: int | None) -> Iterator[None]:
    """Draw initial weights from `seed` (None: from any) and leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def _enliven(generator: TriplaneGenerator) -> None:
    """Make an untrained model's shapes worth a look: a gentle blob in colours, not grey noise."""
    fields = generator.heads[generator.active].fields
    with torch.no_grad():
        fields.sdf[-1].weight.mul_(0.3)
    for layer in fields.color:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


@contextmanager
def _quiet() -> Iterator[None]:
    level, bars = diffusers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    if bars:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _load_part(kind: type, folder: Path, trained: bool):
    if not trained:
        return kind.from_config(_read_json(folder / "config.json"))  # type: ignore[attr-defined]
    try:
        return _pretrained(kind, folder, torch_dtype=torch.float32)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder} is broken ({reason[:160]}); restore it from where it came.") from None


def _pretrained(kind: type, folder: Path, **precision: torch.dtype):
    """diffusers' or transformers' class (they name the precision differently) with a folder's weights."""
    with _quiet():
        model, info = kind.from_pretrained(  # type: ignore[attr-defined]
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant=_variant(folder),
            output_loading_info=True,
            **precision,
        )
    wrong = info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"]
    if wrong:
        raise UserError(f"{folder} does not fit its config.json: look at the weight {next(iter(wrong))}.")
    return model


def _variant(folder: Path) -> str | None:
    """ "fp16" where a folder holds its weights at half precision alone."""
    halves = {path.name for path in folder.glob("*.fp16.safetensors")}
    return "fp16" if halves and len(halves) == len(list(folder.glob("*.safetensors"))) else None


def load_text(folder: Path, seed: int | None = None) -> TextEncoder:
    """The text encoder of the base in `folder`, float32 on the CPU; with a seed, its weights drawn from that.

    Raises:
        UserError: it is missing or broken.
    """
    _require(folder, TEXT_PARTS)
    path, words = folder / "text_encoder", folder / "tokenizer"
    if not (words / "tokenizer.json").is_file() and not (words / "vocab.json").is_file():
        raise UserError(f"{words} holds no vocabulary; restore it from where it came.")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(words, local_files_only=True)
        if seed is None:
            model = _pretrained(CLIPTextModel, path, dtype=torch.float32)
        else:
            with _drawn_from(seed):
                model = CLIPTextModel(CLIPTextConfig.from_dict(_read_json(path / "config.json")))
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is broken ({reason[:160]}); restore it from where it came.") from None
    return TextEncoder(tokenizer, model)
