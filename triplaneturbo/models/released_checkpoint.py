"""Released `.pth` checkpoints: conversion of their state dicts from and to this package's names.

A released checkpoint numbers layers in the order of `peta.adapted_layers` and stores the factors of each
plane in a tensor of their own; this package stores those of all six planes in one tensor.
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
class Target:
    """The tensor of this package that corresponds to a released one.

    Attributes:
        name: name of the tensor.
        plane: index of the plane if the tensor holds all six planes, else None.
    """

    name: str
    plane: int | None = None


def released_key_map(layers: list[tuple[str, str]], config: GeneratorConfig) -> dict[str, Target]:
    """Map every key of a released checkpoint, except the bounding box, to a tensor of this package.

    Args:
        layers: `peta.adapted_layers` of the base.
        config: sizes of the field MLPs.
    """
    key_map: dict[str, Target] = {}
    for number, (kind, name) in enumerate(layers):
        for theirs, ours in _FACTORS:
            if kind == "conv":
                key_map[f"{_LAYERS}.{number}.{theirs}.weight"] = Target(f"{name}.{ours}.weight")
                continue
            for projection in PROJECTIONS:
                short = projection.removesuffix(".0")
                target = f"{name}.{projection}.{ours}.weight"
                if kind == "plane":
                    for plane, word in enumerate(_PLANES):
                        key_map[f"{_LAYERS}.{number}.{short}_{word}.{theirs}.weight"] = Target(target, plane)
                else:
                    key_map[f"{_LAYERS}.{number}.{short}_lora.{theirs}.weight"] = Target(target)
    for part in ("weight", "bias"):
        key_map[f"{_LAYERS}.{len(layers)}.{part}"] = Target(f"planes_out.{part}")
    for theirs, ours in _NETWORKS:
        for index in range(0, 2 * config.mlp_layers + 1, 2):
            for part in ("weight", "bias") if config.mlp_bias else ("weight",):
                key_map[f"{_PREFIX}{theirs}.layers.{index}.{part}"] = Target(f"fields.{ours}.{index}.{part}")
    return key_map


def read_released(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a released checkpoint; no code in the file is executed.

    Raises:
        UserError: the file is missing, truncated, not a checkpoint, or contains more than tensors.
    """
    content = read_checkpoint(path, "a released adapter (.pth)")
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not a released adapter: it has no state_dict of tensors.")
    return state


def infer_config(state: dict[str, Tensor], source: object = "This") -> GeneratorConfig:
    """Infer ranks, plane channels and MLP sizes from the tensor shapes of a released checkpoint.

    Args:
        state: the checkpoint's state dict.
        source: name of the checkpoint in error messages.

    Raises:
        UserError: required tensors are missing.
    """

    def missing_key(key: str) -> UserError:
        return UserError(
            f"{source} is not a released adapter: it has no {key}; use triplane_turbo_sd_v1.pth or a file of"
            " the same format."
        )

    def ranks(suffix: str) -> list[int]:
        """Return the ranks of the layers that have a weight of this name, in order."""
        found = (re.fullmatch(rf"{re.escape(_LAYERS)}\.(\d+)\.{suffix}\.down\.weight", key) for key in state)
        numbered = sorted((int(match[1]), state[match[0]].shape[0]) for match in found if match)
        if not numbered:
            raise missing_key(f"{_LAYERS}.N.{suffix}.down.weight")
        return [rank for _, rank in numbered]

    shared = ranks("to_q_lora")
    first = state.get(f"{_PREFIX}sdf_network.layers.0.weight")
    if first is None:
        raise missing_key(f"{_PREFIX}sdf_network.layers.0.weight")
    conv = re.compile(rf"{re.escape(_LAYERS)}\.\d+\.down\.weight")
    return GeneratorConfig(
        plane_rank=ranks(f"to_q_{_PLANES[0]}")[0],
        cross_rank=shared[0],
        vae_rank=shared[-1],  # the decoder's attention layers are numbered after those of the U-Net
        conv_rank=next((value.shape[0] for key, value in state.items() if conv.fullmatch(key)), 1),
        plane_channels=first.shape[1],
        mlp_width=first.shape[0],
        mlp_layers=sum(key.startswith(f"{_PREFIX}sdf_network.") and key.endswith("weight") for key in state)
        - 1,
        mlp_bias=f"{_PREFIX}sdf_network.layers.0.bias" in state,
    )


def from_released(
    state: dict[str, Tensor], key_map: dict[str, Target], shapes: dict[str, torch.Size], source: object
) -> dict[str, Tensor]:
    """Convert a released state dict to this package's names, checking all names and shapes.

    Args:
        state: the state dict, as returned by `read_released`.
        key_map: `released_key_map` of the base.
        shapes: shapes of this package's tensors, by name.
        source: name of the checkpoint in error messages.

    Raises:
        UserError: names are missing or unknown, or a shape differs: the checkpoint is for another base.
    """
    check_names(set(state) - {_BBOX}, set(key_map), source)
    box = state.get(_BBOX)
    if box is not None and not torch.equal(box.float(), torch.tensor([[-1.0] * 3, [1.0] * 3])):
        raise UserError(
            f"{source} was trained with another bounding box than [-1, 1]^3; it is not supported."
        )
    result: dict[str, Tensor] = {}
    for key, target in key_map.items():
        tensor, expected = state[key], shapes[target.name]
        if target.plane is None:
            check_shape(key, tensor.shape, expected, source)
            result[target.name] = tensor
        else:
            check_shape(key, tensor.shape, expected[1:], source)
            stack = result.setdefault(target.name, tensor.new_empty(expected))
            stack[target.plane] = tensor
    return result


def to_released(tensors: dict[str, Tensor], key_map: dict[str, Target]) -> dict[str, Tensor]:
    """Convert this package's tensors to a released state dict; the inverse of `from_released`."""
    state = {_BBOX: torch.tensor([[-1.0] * 3, [1.0] * 3])}
    for key, target in key_map.items():
        tensor = tensors[target.name]
        state[key] = (tensor if target.plane is None else tensor[target.plane]).clone().contiguous()
    return state


def check_names(found: set[str], wanted: set[str], source: object) -> None:
    """Raise UserError if tensor names are missing or unknown."""
    missing, unknown = sorted(wanted - found), sorted(found - wanted)
    if not found & wanted and any("lora" in name.lower() for name in found):
        raise UserError(
            f"{source} is a LoRA for images ({unknown[0]}), which cannot generate shapes; use an adapter made"
            " with triplaneturbo."
        )
    if missing:
        raise UserError(
            f"{source} does not match this model: {len(missing)} of {len(wanted)} weights are missing "
            f"(the first is {missing[0]})."
        )
    if unknown:
        raise UserError(
            f"{source} does not match this model: it has {len(unknown)} weights that the model does not have "
            f"(the first is {unknown[0]})."
        )


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: object) -> None:
    """Raise UserError if tensors are missing or unknown, or a shape differs."""
    check_names(set(found), set(wanted), source)
    for name, value in found.items():
        check_shape(name, value.shape, wanted[name].shape, source)


def check_shape(name: str, found: torch.Size, wanted: torch.Size, source: object) -> None:
    """Raise UserError if the shape of a tensor differs from the model's."""
    if found != wanted:
        raise UserError(
            f"{source} does not match this model: {name} has shape {list(found)}, expected {list(wanted)}; it"
            " was made for another base (the released adapter needs Stable Diffusion 2.1-base)."
        )
