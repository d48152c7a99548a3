"""From a generated field or a given mesh to its refinement."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from triplaneturbo.distill.ptd import Refiner
from triplaneturbo.models.weights import Model
from triplaneturbo.refine.given_mesh import GivenMesh
from triplaneturbo.refine.options import RefineOptions
from triplaneturbo.refine.setup import setup
from triplaneturbo.representations.base import Representation
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
    spec = find_representation(options.representation)
    generation = {key: asdict(request)[key] for key in ("prompt", "seed", "steps", "adapter")}
    return (
        yield from _start(
            model, name, request, options, folder, generation,
            lambda size, rng: spec.from_field(field, size, rng, request),
        )
    )  # fmt: skip


def start_from_mesh(
    model: Model, name: str, given: GivenMesh, request: Request, options: RefineOptions, folder: Path
) -> Generator[str, None, Refiner]:
    """Prepare the refinement of a given mesh, or resume it; see `start`.

    Args:
        model: the model whose teachers are used; it stays unchanged.
        given: the mesh; it stays unchanged.
        request: says what the mesh is to look like, and has the options of the exported mesh.
        name, options, folder: see `start`.

    Raises:
        UserError: as in `start`, or the representation cannot start from this mesh.
    """
    spec = find_representation(options.representation)
    device = model.generator.device
    return (
        yield from _start(
            model, name, request, options, folder, {"prompt": request.prompt, "mesh": given.digest},
            lambda size, rng: spec.from_mesh(given.mesh, size, rng, request, device),
        )
    )  # fmt: skip


def _start(
    model: Model,
    name: str,
    request: Request,
    options: RefineOptions,
    folder: Path,
    draft: dict[str, Any],
    make: Callable[[int, torch.Generator], Representation],
) -> Generator[str, None, Refiner]:
    prepared = yield from setup(model, name, request.prompt, options, folder / "views")
    asset = make(prepared.size, torch.Generator().manual_seed(options.seed))
    values = {**draft, "model": name, "representation": options.representation}
    return Refiner(
        asset,
        prepared.teachers,
        prepared.draw,
        prepared.settings,
        folder,
        fingerprint={f"draft {key}": value for key, value in values.items()},
    )
