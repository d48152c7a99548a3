"""The layout of released `.pth` files: which of their names is which of ours.

A released file numbers its layers in the order of `peta.adapted_layers` and keeps each plane's pair under a
name of its own (facts/generator.md 1 and 3); we keep the six of a projection in one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.models.checkpoint_io import read_checkpoint
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.peta import PROJECTIONS

_PREFIX = "geometry."
_BBOX = f"{_PREFIX}bbox"
_LAYERS = f"{_PREFIX}space_generator.peft_layers.layers"
_PLANES = ("xy_lora_geo", "xz_lora_geo", "yz_lora_geo", "xy_lora_tex", "xz_lora_tex", "yz_lora_tex")
_FACTORS = (("down", "lora_A"), ("up", "lora_B"))
_NETWORKS = (("sdf_network", "sdf"), ("feature_network", "color"), ("deformation_network", "offset"))


@dataclass(frozen=True)
class Place:
    """Where a released tensor belongs: the name of ours and, where ours holds six, the plane."""

    name: str
    plane: int | None = None


def released_key_map(layers: list[tuple[str, str]], config: GeneratorConfig) -> dict[str, Place]:
    """Every name in a released file but the bounding box, and its place among our tensors.

    Args:
        layers: `peta.adapted_layers` of the base.
        config: sizes of the field MLPs.
    """
    places: dict[str, Place] = {}
    for number, (kind, name) in enumerate(layers):
        for theirs, ours in _FACTORS:
            if kind == "conv":
                places[f"{_LAYERS}.{number}.{theirs}.weight"] = Place(f"{name}.{ours}.weight")
                continue
            for projection in PROJECTIONS:
                short = projection.removesuffix(".0")
                target = f"{name}.{projection}.{ours}.weight"
                if kind == "plane":
                    for plane, word in enumerate(_PLANES):
                        places[f"{_LAYERS}.{number}.{short}_{word}.{theirs}.weight"] = Place(target, plane)
                else:
                    places[f"{_LAYERS}.{number}.{short}_lora.{theirs}.weight"] = Place(target)
    for part in ("weight", "bias"):
        places[f"{_LAYERS}.{len(layers)}.{part}"] = Place(f"planes_out.{part}")
    for theirs, ours in _NETWORKS:
        for index in range(0, 2 * config.mlp_layers + 1, 2):
            for part in ("weight", "bias") if config.mlp_bias else ("weight",):
                places[f"{_PREFIX}{theirs}.layers.{index}.{part}"] = Place(f"fields.{ours}.{index}.{part}")
    return places


def read_released(path: Path) -> dict[str, Tensor]:
    """The tensors of a released file, by their names there; nothing in the file is ever run.

    Raises:
        UserError: the file is missing, truncated, not a checkpoint, or holds more than tensors.
    """
    content = read_checkpoint(path, "a released adapter (.pth)")
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not a released adapter: it holds no state_dict of tensors.")
    return state


def infer_config(state: dict[str, Tensor], source: object = "This") -> GeneratorConfig:
    """The sizes that a released file shows: ranks, plane channels, MLP width and depth.

    `source` is what to call the file in an error.

    Raises:
        UserError: the tensors that show them are not there.
    """

    def refusal(missing: str) -> UserError:
        return UserError(
            f"{source} is not a released adapter: it holds no {missing}; give triplane_turbo_sd_v1.pth or"
            " another of its kind."
        )

    def ranks(suffix: str) -> list[int]:
        """Ranks of the layers that have a weight of that name, in their order."""
        found = (re.fullmatch(rf"{re.escape(_LAYERS)}\.(\d+)\.{suffix}\.down\.weight", key) for key in state)
        numbered = sorted((int(match[1]), state[match[0]].shape[0]) for match in found if match)
        if not numbered:
            raise refusal(f"{_LAYERS}.N.{suffix}.down.weight")
        return [rank for _, rank in numbered]

    shared = ranks("to_q_lora")
    first = state.get(f"{_PREFIX}sdf_network.layers.0.weight")
    if first is None:
        raise refusal(f"{_PREFIX}sdf_network.layers.0.weight")
    conv = re.compile(rf"{re.escape(_LAYERS)}\.\d+\.down\.weight")
    return GeneratorConfig(
        plane_rank=ranks(f"to_q_{_PLANES[0]}")[0],
        cross_rank=shared[0],
        vae_rank=shared[-1],  # the decoder's attention is numbered after all of the U-Net's
        conv_rank=next((value.shape[0] for key, value in state.items() if conv.fullmatch(key)), 1),
        plane_channels=first.shape[1],
        mlp_width=first.shape[0],
        mlp_layers=sum(key.startswith(f"{_PREFIX}sdf_network.") and key.endswith("weight") for key in state)
        - 1,
        mlp_bias=f"{_PREFIX}sdf_network.layers.0.bias" in state,
    )


def from_released(
    state: dict[str, Tensor], places: dict[str, Place], shapes: dict[str, torch.Size], source: object
) -> dict[str, Tensor]:
    """A released file's tensors under our names, every name and shape checked.

    Args:
        state: as `read_released` gives it.
        places: as `released_places` gives them for the base.
        shapes: of our tensors, by name.
        source: what to call the file in an error.

    Raises:
        UserError: names are missing or unknown, or a shape differs: the file belongs to another base.
    """
    check_names(set(state) - {_BBOX}, set(places), source)
    box = state.get(_BBOX)
    if box is not None and not torch.equal(box.float(), torch.tensor([[-1.0] * 3, [1.0] * 3])):
        raise UserError(f"{source} was trained in another box than [-1, 1]^3 and cannot be used.")
    result: dict[str, Tensor] = {}
    for key, place in places.items():
        tensor, wanted = state[key], shapes[place.name]
        if place.plane is None:
            check_shape(key, tensor.shape, wanted, source)
            result[place.name] = tensor
        else:
            check_shape(key, tensor.shape, wanted[1:], source)
            stack = result.setdefault(place.name, tensor.new_empty(wanted))
            stack[place.plane] = tensor
    return result


def to_released(tensors: dict[str, Tensor], places: dict[str, Place]) -> dict[str, Tensor]:
    """Our tensors under a released file's names, the bounding box added: the inverse of from_released."""
    state = {_BBOX: torch.tensor([[-1.0] * 3, [1.0] * 3])}
    for key, place in places.items():
        tensor = tensors[place.name]
        state[key] = (tensor if place.plane is None else tensor[place.plane]).clone().contiguous()
    return state


def check_names(found: set[str], wanted: set[str], source: object) -> None:
    """Raise UserError naming the first missing or unknown weight, if there is one."""
    missing, unknown = sorted(wanted - found), sorted(found - wanted)
    if not found & wanted and any("lora" in name.lower() for name in found):
        raise UserError(
            f"{source} is a LoRA of another kind ({unknown[0]}), which changes pictures and makes no shapes:"
            " give an adapter of triplaneturbo."
        )
    if missing:
        raise UserError(
            f"{source} does not fit this model: {len(missing)} of {len(wanted)} weights are missing "
            f"(the first is {missing[0]})."
        )
    if unknown:
        raise UserError(
            f"{source} does not fit this model: it holds {len(unknown)} weights that the model does not know "
            f"(the first is {unknown[0]})."
        )


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: object) -> None:
    """Raise UserError if a weight is missing, unknown or of another shape."""
    check_names(set(found), set(wanted), source)
    for name, value in found.items():
        check_shape(name, value.shape, wanted[name].shape, source)


def check_shape(name: str, found: torch.Size, wanted: torch.Size, source: object) -> None:
    """Raise UserError if a weight's shape is not the model's."""
    if found != wanted:
        raise UserError(
            f"{source} does not fit this model: {name} is {list(found)} where the model has {list(wanted)};"
            " it was made for another base (the released one for Stable Diffusion 2.1-base)."
        )
