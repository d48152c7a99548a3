"""Metadata of a mesh that was refined, completely or until it was interrupted."""

from __future__ import annotations

from triplaneturbo.distill.ptd import Refiner
from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata, Refinement
from triplaneturbo.refine.given_image import GivenImage
from triplaneturbo.refine.given_mesh import GivenMesh
from triplaneturbo.refine.options import RefineOptions
from triplaneturbo.request import Request


def metadata_of(
    refiner: Refiner,
    request: Request,
    model: str,
    options: RefineOptions,
    given: GivenMesh | None,
    image: GivenImage | None,
) -> GenerationMetadata | None:
    """Return how the mesh of a refinement was made so far.

    Before the first step the mesh is the draft, which was not refined, or the given mesh, of which nothing is
    known (None).

    Args:
        request: the request of the draft; of a given mesh, the prompt and the options of the exported mesh.
        model: the model's name.
        given: the mesh that was refined; None: a generated one.
        image: the picture toward which it was refined; None: there was none.
    """
    if not refiner.steps:
        return None if given is not None else GenerationMetadata(request, model)
    refinement = Refinement(
        refine_steps=refiner.settings.steps,
        stopped_after=0 if refiner.finished else refiner.steps,
        refine_seed=options.seed,
        refine_as=options.representation,
        refine_teachers=tuple(refiner.settings.teachers),
        refine_path=options.path,
        refine_score=options.score,
        refine_mesh="" if given is None else given.digest,
        refine_image="" if image is None else image.digest,
    )
    return GenerationMetadata(request, model, refinement=refinement)
