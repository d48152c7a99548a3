"""Metadata of a refined mesh."""

from __future__ import annotations

from triplaneturbo.distill.ptd import Refiner
from triplaneturbo.mesh.io.generation_metadata import Refinement
from triplaneturbo.refine.given_image import GivenImage
from triplaneturbo.refine.given_mesh import GivenMesh
from triplaneturbo.refine.options import RefineOptions


def refinement_of(
    refiner: Refiner, options: RefineOptions, given: GivenMesh | None, image: GivenImage | None
) -> Refinement:
    """Return how a mesh was refined so far, for the metadata of its files.

    Args:
        given: the mesh that was refined; None: a generated one.
        image: the picture toward which it was refined; None: there was none.
    """
    return Refinement(
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
