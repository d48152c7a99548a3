"""Adapter state dicts: get, set, load and save the tensors of the active adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.models import peta
from triplaneturbo.models.adapters import STEPS
from triplaneturbo.models.full_finetune import add_base_prefix, base_parameters, is_base_tensor
from triplaneturbo.models.released_checkpoint import (
    check_tensors,
    from_released,
    read_released,
    released_key_map,
    to_released,
)
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.utils.atomic_files import write_atomically

ADAPTER_NAME = "adapter.safetensors"
# Tensors that adapters from before a model had them lack; zero, they have no effect.
_OPTIONAL = ("variants",)

T = TypeVar("T")


def adapter_tensors(generator: TriplaneGenerator) -> dict[str, Tensor]:
    """Return the tensors of the active adapter by name.

    Low-rank factors are named `unet.` or `decoder.` plus peft's name (`lora_A` is the down projection,
    `lora_B` the up projection; one tensor holds all six planes). The head uses `planes_out.` and `fields.`.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, model in _adapted_models(generator):
        state = get_peft_model_state_dict(model, adapter_name=generator.active)
        tensors |= {f"{prefix}.{name}": value for name, value in state.items()}
    return tensors | dict(generator.heads[generator.active].state_dict())


def set_adapter_tensors(generator: TriplaneGenerator, tensors: dict[str, Tensor], source: object) -> None:
    """Copy tensors into the active adapter.

    Args:
        generator: the model to change.
        tensors: tensors by name, named as in `adapter_tensors`.
        source: name of the tensors' origin in error messages.

    Raises:
        UserError: a name is missing or unknown, or a shape differs; the generator is unchanged then.
    """
    check_adapter_tensors(generator, tensors, source)
    for prefix, model in _adapted_models(generator):
        state = {n.removeprefix(f"{prefix}."): v for n, v in tensors.items() if n.startswith(f"{prefix}.")}
        set_peft_model_state_dict(model, state, adapter_name=generator.active)
    head = generator.heads[generator.active]
    own = head.state_dict()
    tensors = add_optional(tensors, {name: torch.zeros_like(value) for name, value in own.items()})
    head.load_state_dict({name: tensors[name] for name in own})


def check_adapter_tensors(generator: TriplaneGenerator, tensors: dict[str, Tensor], source: object) -> None:
    """Check that tensors match the names and shapes of this generator's adapter.

    Raises:
        UserError: a name is missing or unknown, or a shape differs.
    """
    wanted = adapter_tensors(generator)
    check_tensors(add_optional(tensors, wanted), wanted, source)


def add_optional(found: Mapping[str, T], defaults: Mapping[str, T]) -> dict[str, T]:
    """Return values by tensor name, with those of `defaults` for optional tensors that are missing."""
    return {name: defaults[name] for name in _OPTIONAL if name in defaults} | dict(found)


def load_adapter(generator: TriplaneGenerator, path: Path) -> None:
    """Load the active adapter from a `.safetensors` file, or from a released checkpoint (any other suffix).

    Raises:
        UserError: the file is missing, corrupt, or was made for another base.
    """
    if path.suffix == ".safetensors":
        tensors = read_safetensors(path)
        if any(map(is_base_tensor, tensors)):
            raise UserError(
                f"{path} comes from full fine-tuning and cannot be used as a starting point; choose another"
                " adapter."
            )
        set_adapter_tensors(generator, tensors, path)
        return
    layers = peta.adapted_layers(generator.unet, generator.vae.decoder)
    shapes = {name: tensor.shape for name, tensor in adapter_tensors(generator).items()}
    key_map = released_key_map(layers, generator.config)
    set_adapter_tensors(generator, from_released(read_released(path), key_map, shapes, path), path)


def save_adapter(
    generator: TriplaneGenerator, path: Path, include_base: bool = False, steps: int | None = None
) -> None:
    """Save the active adapter as `.safetensors`, or in the released layout (any other suffix).

    Args:
        generator: the model whose active adapter is saved.
        path: the file to write.
        include_base: also save the weights of the base, after full fine-tuning; `.safetensors` only.
        steps: number of denoising steps that the adapter was trained with, which `adapters.adapter_steps`
            reads; `.safetensors` only. None: not stored.

    Raises:
        UserError: the file cannot be written, or the released layout cannot represent the adapter.
    """
    tensors = adapter_tensors(generator)
    if include_base:
        tensors |= add_base_prefix(base_parameters(generator))
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    if path.suffix == ".safetensors":
        write_atomically(path, encode_safetensors(tensors, steps))
        return
    if generator.config.plane_embedding or generator.config.variants > 1:
        raise UserError(
            "The released format does not support plane and variant embeddings; save the adapter as"
            f" {path.stem}.safetensors."
        )
    key_map = released_key_map(peta.adapted_layers(generator.unet, generator.vae.decoder), generator.config)
    content = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.0.0",
        "state_dict": to_released(tensors, key_map),
    }
    buffer = BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def encode_safetensors(tensors: dict[str, Tensor], steps: int | None = None) -> bytes:
    """Return the bytes of a safetensors file, with the number of denoising steps in its metadata if given."""
    data = save(tensors, metadata={"format": "pt"})
    if steps is None:
        return data
    # The library writes several entries of metadata in random order; equal adapters should be equal files.
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"][STEPS] = str(steps)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned to 8 bytes
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(data)[8 + size :]))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        UserError: the file is missing or corrupt.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"File not found: {path}; restore the model folder.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is corrupt ({error}); restore or download it again.") from None


def _adapted_models(generator: TriplaneGenerator) -> tuple[tuple[str, torch.nn.Module], ...]:
    return ("unet", generator.unet), ("decoder", generator.vae.decoder)
