"""From a generated field or a given mesh to its refinement."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from triplaneturbo.distill.checkpoints import Checkpoints
from triplaneturbo.distill.memory_plan import MemorySavings
from triplaneturbo.distill.ptd import Refiner
from triplaneturbo.models.config import TOYWORLD
from triplaneturbo.models.weights import Model
from triplaneturbo.refine.fit_error import fit_error
from triplaneturbo.refine.given_image import GivenImage
from triplaneturbo.refine.given_mesh import GivenMesh
from triplaneturbo.refine.image_view import match_view
from triplaneturbo.refine.memory_plan import texel_count
from triplaneturbo.refine.options import SAVINGS, RefineOptions
from triplaneturbo.refine.setup import setup
from triplaneturbo.representations.registry import find_representation
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request
from triplaneturbo.utils.atomic_files import write_atomically


def start(
    model: Model,
    name: str,
    source: TriplaneField | GivenMesh,
    request: Request,
    options: RefineOptions,
    folder: Path,
    image: GivenImage | None = None,
) -> Generator[str, None, Refiner]:
    """Prepare a refinement, or resume it; yield what is being done.

    Args:
        model: the model that generated the field, or whose teachers refine the mesh; it stays unchanged.
        name: the model's name in messages.
        source: a generated field or a given mesh; it stays unchanged.
        request: the request of the field, with all defaults filled in; of a given mesh, the prompt and the
            options of the exported mesh.
        options: the user's choices.
        folder: receives reference views, checkpoints, and the memory savings, which are used on resume.
        image: a picture of the asset, which becomes an additional view.

    Returns:
        The refinement; its asset is `representation`.

    Raises:
        UserError: the prompt, an option or a teacher is not available, the representation cannot start from
            the mesh, or the folder belongs to another refinement.
        EmptySurfaceError: the field has no surface, but the representation needs one.
    """
    kept, savings = folder / SAVINGS, None
    if Checkpoints(folder, {}).iterations() and kept.is_file():
        # Others would round differently, and the result would not be that of an uninterrupted run.
        savings = MemorySavings(**json.loads(kept.read_text(encoding="utf-8")))
    texels = texel_count(source.mesh if isinstance(source, GivenMesh) else None, request)
    prepared = yield from setup(
        model, name, request.prompt, options, folder / "views", savings, texels, image is not None
    )
    spec, rng = find_representation(options.representation), torch.Generator().manual_seed(options.seed)
    draft: dict[str, Any]
    notes, reference = list[str](), None
    if isinstance(source, GivenMesh):
        yield f"making {spec.label} of the mesh"
        asset = spec.from_mesh(source.mesh, prepared.size, rng, request, _blank(model))
        if spec.has_shape:
            notes.append(fit_error(asset, source.mesh, prepared.size).sentence(spec.label))
        draft = {"prompt": request.prompt, "mesh": source.digest}
    else:
        asset = spec.from_field(source, prepared.size, rng, request)
        draft = {key: asdict(request)[key] for key in ("prompt", "seed", "steps", "adapter")}
    draft |= {"model": model.folder.name, "representation": options.representation}
    if image is not None:
        yield "finding the camera of the picture"
        reference, azimuth = match_view(asset, image, prepared.size)
        draft |= {"image": image.digest}
        notes.append(f"The picture shows the asset from an azimuth of {azimuth:.0f} degrees.")
    if model.config.domain != TOYWORLD:
        draft |= {"refining": True}  # how teachers are conditioned; see `TeacherContext`
    draft |= asset.fingerprint()
    refiner = Refiner(
        asset,
        prepared.teachers,
        prepared.draw,
        prepared.settings,
        folder,
        fingerprint={f"draft {key}": value for key, value in draft.items()},
        reference=reference,
    )
    write_atomically(kept, json.dumps(asdict(prepared.savings)).encode())
    if options.path not in ("", "none") and not refiner.paths:
        notes.append(f"No teacher has a network, so --path {options.path} has no effect.")
    refiner.notes += notes
    return refiner


def _blank(model: Model) -> TriplaneField:
    """Return a field of a model with planes of zeros."""
    config, generator = model.config, model.generator
    side = config.plane_size(len(generator.vae.config.block_out_channels))
    planes = torch.zeros(6, config.plane_channels, side, side, device=generator.device)
    return generator.field(planes)
