"""From a generated field to its refinement."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path

import torch

from triplaneturbo.distill.ptd import Refiner
from triplaneturbo.models.weights import Model
from triplaneturbo.refine.options import RefineOptions
from triplaneturbo.refine.setup import setup
from triplaneturbo.representations.registry import find_representation
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request


def start(
    model: Model, name: str, field: TriplaneField, request: Request, options: RefineOptions, folder: Path
) -> Generator[str, None, Refiner]:
    """Prepare the refinement of a generated field, or resume it; yield what is being done.

    Args:
        model: the model that generated the field; it stays unchanged.
        name: the model's name, in messages and to recognize the refinement on resume.
        field: the field; it stays unchanged.
        request: the request of the field, with all defaults filled in.
        options: the user's choices.
        folder: receives reference views and checkpoints.

    Returns:
        The refinement; its asset is `representation`.

    Raises:
        UserError: the prompt, an option or a teacher is not available, or the folder belongs to another
            refinement.
        EmptySurfaceError: the field has no surface, but the representation needs one.
    """
    prepared = yield from setup(model, name, request.prompt, options, folder / "views")
    rng = torch.Generator().manual_seed(options.seed)
    asset = find_representation(options.representation).from_field(field, prepared.size, rng)
    generation = {key: asdict(request)[key] for key in ("prompt", "seed", "steps", "adapter")}
    fingerprint = {**generation, "model": name, "representation": options.representation}
    fingerprint = {f"draft {key}": value for key, value in fingerprint.items()}
    return Refiner(
        asset, prepared.teachers, prepared.draw, prepared.settings, folder, fingerprint=fingerprint
    )
