"""Small real fields that tests in several rooms share."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField

MUSHROOM = GeneratorConfig(plane_channels=4, mlp_width=32)
MUSHROOM_FILE = Path(__file__).parent / "data" / "mushroom.safetensors"


def mushroom() -> TriplaneField:
    """A red mushroom with white spots, the largest at the front (+x), z up; see fit_mushroom.py.

    The solid spans about [-0.63, 0.63] in x and y and [-0.7, 0.53] in z.
    """
    state = {name: value.float() for name, value in load_file(MUSHROOM_FILE).items()}
    planes = state.pop("planes")
    fields = FieldDecoder(MUSHROOM)
    fields.load_state_dict(state)
    return TriplaneField(planes, fields.requires_grad_(False).eval())


RELEASED = {"sdf": "sdf_network", "offset": "deformation_network", "color": "feature_network"}


def released_fields(folder: Path) -> FieldDecoder:
    """The MLPs in the adapter file of the parity data; sizes are the file's."""
    state = torch.load(folder / "adapter.pth", weights_only=True)["state_dict"]
    first = state["geometry.sdf_network.layers.0.weight"]
    fields = FieldDecoder(GeneratorConfig(plane_channels=first.shape[1], mlp_width=first.shape[0]))
    weights = {
        f"{ours}.{index}.weight": state[f"geometry.{theirs}.layers.{index}.weight"]
        for ours, theirs in RELEASED.items()
        for index in (0, 2, 4)
    }
    fields.load_state_dict(weights)
    return fields


def random_field(size: tuple[int, int] = (16, 16), scale: float = 1.0, **config: object) -> TriplaneField:
    settings = {"plane_channels": 5, "mlp_width": 12, **config}
    fields = FieldDecoder(GeneratorConfig(**settings))  # type: ignore[arg-type]
    return TriplaneField(scale * torch.randn(6, 5, *size), fields.requires_grad_(False))
