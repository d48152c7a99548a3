"""An adapter as tensors: read from a generator, written into one, kept in a file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.models import peta
from triplaneturbo.models.full_finetune import base_parameters, is_of_base, marked
from triplaneturbo.models.released_checkpoint import (
    check_tensors,
    from_released,
    read_released,
    released_places,
    to_released,
)
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.utils.atomic_files import write_whole

ADAPTER_NAME = "adapter.safetensors"


def adapter_tensors(generator: TriplaneGenerator) -> dict[str, Tensor]:
    """The active adapter's tensors by name.

    `unet.` and `decoder.` plus peft's names for the low-rank pairs (`lora_A` down, `lora_B` up; six planes
    in one tensor), `planes_out.` and `fields.` for the head.
    """
    tensors: dict[str, Tensor] = {}
    for room, model in _rooms(generator):
        state = get_peft_model_state_dict(model, adapter_name=generator.active)
        tensors |= {f"{room}.{name}": value for name, value in state.items()}
    return tensors | dict(generator.heads[generator.active].state_dict())


def set_adapter_tensors(generator: TriplaneGenerator, tensors: dict[str, Tensor], source: object) -> None:
    """Write tensors named as `adapter_tensors` names them into the active adapter.

    Raises:
        UserError: a name is missing or unknown, or a shape differs; nothing is changed then.
    """
    check_adapter_tensors(generator, tensors, source)
    for room, model in _rooms(generator):
        part = {n.removeprefix(f"{room}."): v for n, v in tensors.items() if n.startswith(f"{room}.")}
        set_peft_model_state_dict(model, part, adapter_name=generator.active)
    head = generator.heads[generator.active]
    head.load_state_dict({name: tensors[name] for name in head.state_dict()})


def check_adapter_tensors(generator: TriplaneGenerator, tensors: dict[str, Tensor], source: object) -> None:
    """Nothing, if tensors are those of an adapter of this generator.

    Raises:
        UserError: a name is missing or unknown, or a shape differs.
    """
    check_tensors(tensors, adapter_tensors(generator), source)


def load_adapter(generator: TriplaneGenerator, path: Path) -> None:
    """Load the active adapter from our own file (`.safetensors`) or a released one (any other suffix).

    Raises:
        UserError: the file is missing, broken, or belongs to another base.
    """
    if path.suffix == ".safetensors":
        tensors = read_safetensors(path)
        if any(map(is_of_base, tensors)):
            raise UserError(f"{path} comes of full tuning, which cannot be gone on with: choose another one.")
        set_adapter_tensors(generator, tensors, path)
        return
    layers = peta.adapted_layers(generator.unet, generator.vae.decoder)
    shapes = {name: tensor.shape for name, tensor in adapter_tensors(generator).items()}
    places = released_places(layers, generator.config)
    set_adapter_tensors(generator, from_released(read_released(path), places, shapes, path), path)


def save_adapter(generator: TriplaneGenerator, path: Path, whole: bool = False) -> None:
    """Write the active adapter: our own layout for `.safetensors`, the released one for any other suffix.

    Args:
        whole: with the base, of full tuning; only in our own layout.

    Raises:
        UserError: the file cannot be written, or its layout has no place for all that the adapter is.
    """
    tensors = adapter_tensors(generator) | (marked(base_parameters(generator)) if whole else {})
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    if path.suffix == ".safetensors":
        write_whole(path, save(tensors, metadata={"format": "pt"}))
        return
    if generator.config.plane_embedding:
        raise UserError(
            f"The released layout has no place for the planes' embedding: write {path.stem}.safetensors."
        )
    places = released_places(peta.adapted_layers(generator.unet, generator.vae.decoder), generator.config)
    content = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.0.0",
        "state_dict": to_released(tensors, places),
    }
    buffer = BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue())


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        UserError: the file is missing or broken.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; restore the model's folder.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is broken ({error}); restore it from where it came.") from None


def _rooms(generator: TriplaneGenerator) -> tuple[tuple[str, torch.nn.Module], ...]:
    return ("unet", generator.unet), ("decoder", generator.vae.decoder)
