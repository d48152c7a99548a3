"""Adapters of other ranks, and basic LoRA's, in a generator that was made for its own adapter.

A rank stands in a pair's shapes alone: the layers compute with whatever they hold. Where a pair serves all
planes (basic LoRA) and the generator has six of them, it is added to the weight that it adapts, as `merge`
does with others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from triplaneturbo.models.adapter import adapter_tensors
from triplaneturbo.models.peta import PLANES
from triplaneturbo.models.released_checkpoint import check_names, check_shape
from triplaneturbo.models.triplane_generator import TriplaneGenerator

Shapes = Mapping[str, Sequence[int]]


def fits_but_for_ranks(found: Shapes, wanted: Shapes) -> bool:
    """Whether shapes by name are those of an adapter, of any ranks, for a generator that has `wanted`."""
    return found.keys() == wanted.keys() and all(_fits(name, found, wanted) for name in wanted)


def check_but_for_ranks(generator: TriplaneGenerator, tensors: dict[str, Tensor], source: object) -> None:
    """Nothing, if tensors are those of an adapter of this generator, of whatever ranks.

    Raises:
        UserError: a name is missing or unknown, or a shape differs.
    """
    wanted = {name: value.shape for name, value in adapter_tensors(generator).items()}
    found = {name: value.shape for name, value in tensors.items()}
    check_names(set(found), set(wanted), source)
    for name, shape in found.items():
        if not _fits(name, found, wanted):
            check_shape(name, shape, wanted[name], source)


@torch.no_grad()
def take_ranks(generator: TriplaneGenerator, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the active adapter the ranks of checked tensors; returns what is to be written into it.

    The generator is on the CPU, in float32, its shared adapters not merged and its base as it is in its file.
    """
    rooms = {"unet": generator.unet, "decoder": generator.vae.decoder}
    taken = dict(tensors)
    for name, value in tensors.items():
        place, kind = _pair(name)
        if not kind:
            continue
        room, _, inner = place.partition(".")
        layer = rooms[room].get_submodule(inner)
        parameter: nn.Parameter = getattr(layer, kind)[generator.active].weight
        if parameter.ndim == 3 and value.ndim == 2:
            if kind == "lora_B":
                down = tensors[name.replace("lora_B", "lora_A")]
                layer.get_base_layer().weight.add_(value.float() @ down.float())
            taken[name] = value = torch.zeros(PLANES, *value.shape)
        if parameter.shape != value.shape:
            parameter.data = torch.zeros(value.shape, dtype=parameter.dtype)
    return taken


def _pair(name: str) -> tuple[str, str]:
    """The layer of a low-rank factor and which of the two it is: "" where a tensor is none."""
    for kind in ("lora_A", "lora_B"):
        place, found, _ = name.partition(f".{kind}.")
        if found:
            return place, kind
    return name, ""


def _fits(name: str, found: Shapes, wanted: Shapes) -> bool:
    here, there = list(found[name]), list(wanted[name])
    _, kind = _pair(name)
    if not kind:
        return here == there
    if len(here) != len(there) and (len(here), len(there)) != (2, 3):
        return False
    partner = name.replace(kind, "lora_B" if kind == "lora_A" else "lora_A")
    ranks = {_split(one, found[one])[0] for one in (name, partner)}
    return len(ranks) == 1 and _split(name, here)[1] == _split(name, there)[1]


def _split(name: str, shape: Sequence[int]) -> tuple[int, list[int]]:
    """The rank in a factor's shape, and the rest of it without the planes."""
    rest = list(shape[1:] if len(shape) == 3 else shape)
    return rest.pop(0 if _pair(name)[1] == "lora_A" else 1), rest
