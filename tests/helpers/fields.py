"""Small real fields that tests in several rooms share."""

from __future__ import annotations

from pathlib import Path

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
