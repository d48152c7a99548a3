"""Loading, saving and conversion of models.

A model is a folder:

    triplaneturbo.json                                       GeneratorConfig
    adapter.safetensors                                      PETA weights, output convolution, field MLPs
    unet/ vae/ scheduler/ text_encoder/ tokenizer/           the base, in diffusers' layout

Several adapters may share a base in another folder. This module does not access the network.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import ADAPTER_NAME, load_adapter, save_adapter
from triplaneturbo.models.adapters import adapter_steps
from triplaneturbo.models.config import CONFIG_NAME, GeneratorConfig
from triplaneturbo.models.released_checkpoint import infer_config, read_released
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.triplane_generator import TriplaneGenerator

BASE_PARTS = ("unet", "vae", "scheduler")
TEXT_PARTS = ("text_encoder", "tokenizer")
CLIP_PART = "clip"  # the judge of fine-tuning runs, which the toy world's model has beside it
_SAVED_FILES = ("*.json", "*.safetensors", "*.txt")


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
        generator: the triplane generator.
        text: its text encoder.
        config: its hyperparameters; `steps` is that of the adapter if the adapter's file has one.
        folder: the folder that it was loaded from.
        trained: False if its weights are random.
        base: the folder of the base model; None: `folder`.
        adapter: the file of the adapter; None: `adapter.safetensors` in `folder`.
    """

    generator: TriplaneGenerator
    text: TextEncoder
    config: GeneratorConfig
    folder: Path
    trained: bool
    base: Path | None = None
    adapter: Path | None = None


def load_model(
    folder: Path,
    *,
    base: Path | None = None,
    adapter: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """Load a model for inference, with shared adapters merged.

    Args:
        folder: folder of the model.
        base: folder of the base; None: `folder` itself.
        adapter: adapter file, `.safetensors` or released; None: `adapter.safetensors` in `folder`.
        device: device of the weights.
        dtype: dtype of the base and the adapters; the field MLPs stay in float32.

    Raises:
        UserError: a part is missing or corrupt, or parts do not match.
    """
    config = GeneratorConfig.load(folder)
    config = replace(config, steps=adapter_steps(adapter or folder / ADAPTER_NAME) or config.steps)
    generator, trained = load_generator(folder, config, base=base, adapter=adapter)
    generator.merge()
    generator.to(device=device)
    generator.cast(dtype)
    text = load_text(base or folder, None if trained else config.untrained_seed)
    text.model.to(device=device, dtype=dtype if torch.device(device).type == "cuda" else torch.float32)
    return Model(generator.eval(), text, config, folder, trained, base, adapter)


def save_model(model: Model, folder: Path) -> Path:
    """Write a loaded model as one folder that `load_model` reads without a separate base; returns `folder`.

    The files that the model was loaded from are copied, in the precision that they have: the weights in
    memory are merged with the adapter and may be rounded, so that loading those would not give the same
    planes or take another adapter. Other files in `folder` are kept.

    Raises:
        UserError: a file of the model is gone, or the folder cannot be written.
    """
    base, adapter = model.base or model.folder, model.adapter or model.folder / ADAPTER_NAME
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
            new, old = Path(place) / "new", Path(place) / "old"
            new.mkdir()
            old.mkdir()
            for part in BASE_PARTS + TEXT_PARTS:
                _copy_part(base / part, new / part)
            if (model.folder / CLIP_PART).is_dir():
                _copy_part(model.folder / CLIP_PART, new / CLIP_PART)
            if adapter.suffix == ".safetensors" and (model.trained or adapter.is_file()):
                shutil.copyfile(adapter, new / ADAPTER_NAME)
            elif model.trained:  # a released one
                generator, _ = load_generator(model.folder, model.config, base=base, adapter=adapter)
                save_adapter(generator, new / ADAPTER_NAME)
            folder.mkdir(exist_ok=True)
            for name in (CONFIG_NAME, ADAPTER_NAME, *BASE_PARTS, *TEXT_PARTS, CLIP_PART):
                if (folder / name).exists():
                    (folder / name).rename(old / name)
                if (new / name).exists():
                    (new / name).rename(folder / name)
            model.config.save(folder)  # last: without it, an interrupted save is not taken for a model
    except OSError as error:
        raise UserError(f"Cannot save the model in {folder}: {error.strerror or error}.") from error
    return folder


def _copy_part(source: Path, target: Path) -> None:
    """Copy the files of one part of a model that the loader reads, with links resolved."""
    variant = _variant(source)
    for path in sorted(path for pattern in _SAVED_FILES for path in source.rglob(pattern)):
        if variant is None and path.name.endswith(".fp16.safetensors"):
            continue  # beside weights of full precision, which the loader prefers
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def load_generator(
    folder: Path,
    config: GeneratorConfig,
    *,
    base: Path | None = None,
    adapter: Path | None = None,
    encoder: bool = False,
    new: bool = False,
) -> tuple[TriplaneGenerator, bool]:
    """Load the generator in float32 on the CPU, with unmerged adapters.

    If the folder has no weights and `config.untrained_seed` is set, random weights are drawn from that seed.

    Args:
        folder: folder of the model.
        config: its hyperparameters.
        base: folder of the base; None: `folder` itself.
        adapter: adapter file; None: `adapter.safetensors` in `folder`.
        encoder: keep the VAE's encoder, which inference does not need.
        new: initialise a new adapter from torch's global seed, for training, instead of loading one.

    Returns:
        the generator, and whether it is trained.

    Raises:
        UserError: a part is missing or corrupt, or parts do not match.
    """
    base = base or folder
    _require(base, BASE_PARTS)
    trained = config.untrained_seed is None or adapter is not None or (folder / ADAPTER_NAME).exists()
    adapter = adapter or folder / ADAPTER_NAME
    if trained and not new and not adapter.is_file():
        raise UserError(f"File not found: {adapter}; restore or download it again.")
    with _seeded(None if trained else config.untrained_seed):  # loaded modules are initialised first, too
        unet, vae = load_base(base, trained)
        if not encoder:
            vae.encoder = None
            vae.quant_conv = None
        scheduler = DDIMScheduler.from_config(_read_json(base / "scheduler" / "scheduler_config.json"))
        generator = TriplaneGenerator(unet, vae, scheduler, config)
        if not trained:
            _scale_random_head(generator)
    if trained and not new:
        load_adapter(generator, adapter)
    return generator, trained


def load_base(base: Path, trained: bool = True) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """Load the base's U-Net and VAE in float32 on the CPU; with random weights if `trained` is False.

    Raises:
        UserError: one of them is missing or corrupt.
    """
    unet = _load_part(UNet2DConditionModel, base / "unet", trained)
    return unet, _load_part(AutoencoderKL, base / "vae", trained)


def convert_released(released: Path, base: Path, folder: Path) -> Path:
    """Convert a released `.pth` adapter to a model folder, without copying the base. Returns `folder`.

    Raises:
        UserError: the adapter or the base is missing or corrupt, or they do not match.
    """
    config = infer_config(read_released(released), released)
    generator, _ = load_generator(folder, config, base=base, adapter=released)
    save_adapter(generator, folder / ADAPTER_NAME)
    config.save(folder)
    return folder


def _require(folder: Path, parts: tuple[str, ...]) -> None:
    if not folder.is_dir():
        raise UserError(f"Folder not found: {folder}; give the path of a model folder.")
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"{folder} is not a complete model: {' and '.join(missing)} missing; it should have the folders "
            f"{', '.join(BASE_PARTS + TEXT_PARTS)} and the files {CONFIG_NAME} and {ADAPTER_NAME}."
        )


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error}); restore or download it again.") from None


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seed torch (unless `seed` is None), and restore the global random state on exit."""
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def _scale_random_head(generator: TriplaneGenerator) -> None:
    """Rescale the MLPs of an untrained model, so that it generates smooth coloured blobs, not grey noise."""
    fields = generator.heads[generator.active].fields
    with torch.no_grad():
        fields.sdf[-1].weight.mul_(0.3)
    for layer in fields.color:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log and the progress bars of diffusers and transformers."""
    level, progress_bar = diffusers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    if progress_bar:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
        if progress_bar:
            transformers_logging.enable_progress_bar()


def _load_part(kind: type, folder: Path, trained: bool):
    if not trained:
        return kind.from_config(_read_json(folder / "config.json"))  # type: ignore[attr-defined]
    try:
        return _pretrained(kind, folder, torch_dtype=torch.float32)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder} is corrupt ({reason[:160]}); restore or download it again.") from None


def _pretrained(kind: type, folder: Path, **precision: torch.dtype):
    """Load a diffusers or transformers model; `precision` is its dtype argument, whose name differs."""
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
        raise UserError(f"{folder} does not match its config.json: see the weight {next(iter(wrong))}.")
    return model


def _variant(folder: Path) -> str | None:
    """Return "fp16" if a folder only has half-precision weights, else None."""
    fp16 = {path.name for path in folder.glob("*.fp16.safetensors")}
    return "fp16" if fp16 and len(fp16) == len(list(folder.glob("*.safetensors"))) else None


def load_text(folder: Path, seed: int | None = None) -> TextEncoder:
    """Load the text encoder of the base in `folder`, in float32 on the CPU.

    Args:
        folder: folder of the base.
        seed: draw random weights from this seed; None: load the weights.

    Raises:
        UserError: it is missing or corrupt.
    """
    _require(folder, TEXT_PARTS)
    path, tokenizer_path = folder / "text_encoder", folder / "tokenizer"
    if not (tokenizer_path / "tokenizer.json").is_file() and not (tokenizer_path / "vocab.json").is_file():
        raise UserError(f"{tokenizer_path} has no vocabulary; restore or download it again.")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(tokenizer_path, local_files_only=True)
        if seed is None:
            model = _pretrained(CLIPTextModel, path, dtype=torch.float32)
        else:
            with _seeded(seed):
                model = CLIPTextModel(CLIPTextConfig.from_dict(_read_json(path / "config.json")))
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is corrupt ({reason[:160]}); restore or download it again.") from None
    return TextEncoder(tokenizer, model)
