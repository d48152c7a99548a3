"""Adapters with other ranks: resize the low-rank factors of a generator to fit.

A rank only appears in the shapes of the factors, so any rank works in the same layers. If the adapter shares
one pair of factors between planes (plain LoRA) and the generator has one per plane (PETA), the shared pair is
merged into the base weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from triplaneturbo.models.adapter import adapter_tensors, add_optional
from triplaneturbo.models.peta import PLANES
from triplaneturbo.models.released_checkpoint import check_names, check_shape
from triplaneturbo.models.triplane_generator import TriplaneGenerator

Shapes = Mapping[str, Sequence[int]]


def match_except_ranks(found: Shapes, wanted: Shapes) -> bool:
    """Return whether the shapes `found` match those of a generator's adapter, `wanted`, except for ranks."""
    found = add_optional(found, wanted)
    return found.keys() == wanted.keys() and all(_matches(name, found, wanted) for name in wanted)


def check_except_ranks(generator: TriplaneGenerator, tensors: dict[str, Tensor], source: object) -> None:
    """Check that tensors match this generator's adapter in names and, except for ranks, in shapes.

    Raises:
        UserError: a name is missing or unknown, or a shape differs.
    """
    wanted = {name: value.shape for name, value in adapter_tensors(generator).items()}
    found = add_optional({name: value.shape for name, value in tensors.items()}, wanted)
    check_names(set(found), set(wanted), source)
    for name, shape in found.items():
        if not _matches(name, found, wanted):
            check_shape(name, shape, wanted[name], source)


@torch.no_grad()
def resize_ranks(generator: TriplaneGenerator, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Resize the active adapter to the ranks of `tensors`, and return the tensors to load into it.

    Args:
        generator: on the CPU in float32, with unmodified base weights and unmerged adapters.
        tensors: tensors that passed `check_except_ranks`.
    """
    models = {"unet": generator.unet, "decoder": generator.vae.decoder}
    resized = dict(tensors)
    for name, value in tensors.items():
        path, kind = _split_factor_name(name)
        if not kind:
            continue
        prefix, _, layer_name = path.partition(".")
        layer = models[prefix].get_submodule(layer_name)
        parameter: nn.Parameter = getattr(layer, kind)[generator.active].weight
        if parameter.ndim == 3 and value.ndim == 2:
            if kind == "lora_B":
                down = tensors[name.replace("lora_B", "lora_A")]
                layer.get_base_layer().weight.add_(value.float() @ down.float())
            resized[name] = value = torch.zeros(PLANES, *value.shape)
        if parameter.shape != value.shape:
            parameter.data = torch.zeros(value.shape, dtype=parameter.dtype)
    return resized


def _split_factor_name(name: str) -> tuple[str, str]:
    """Split the name of a low-rank factor into layer and "lora_A" or "lora_B" ("" for other tensors)."""
    for kind in ("lora_A", "lora_B"):
        path, found, _ = name.partition(f".{kind}.")
        if found:
            return path, kind
    return name, ""


def _matches(name: str, found: Shapes, wanted: Shapes) -> bool:
    actual, expected = list(found[name]), list(wanted[name])
    _, kind = _split_factor_name(name)
    if not kind:
        return actual == expected
    if len(actual) != len(expected) and (len(actual), len(expected)) != (2, 3):
        return False
    partner = name.replace(kind, "lora_B" if kind == "lora_A" else "lora_A")
    ranks = {_split_shape(factor, found[factor])[0] for factor in (name, partner)}
    return len(ranks) == 1 and _split_shape(name, actual)[1] == _split_shape(name, expected)[1]


def _split_shape(name: str, shape: Sequence[int]) -> tuple[int, list[int]]:
    """Split the shape of a factor into its rank and the other dimensions, without that of planes."""
    rest = list(shape[1:] if len(shape) == 3 else shape)
    return rest.pop(0 if _split_factor_name(name)[1] == "lora_A" else 1), rest
