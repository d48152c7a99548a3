"""Mesh options in the full pipeline with the built-in model: floaters, smoothing, watertight."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from tests.helpers.trimeshes import joined
from tests.helpers.voxel_sets import voxel_surface
from triplaneturbo import pipeline as pipeline_module
from triplaneturbo.errors import UserError
from triplaneturbo.mesh import finish as finish_module
from triplaneturbo.mesh.check import check
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.io import encode
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import drop_floaters
from triplaneturbo.mesh.processing.simplify import Simplified, simplify
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.weights import load_model
from triplaneturbo.pipeline import Pipeline, Result
from triplaneturbo.request import DEFAULT_FLOATERS, Request

SNAKE = Request("a striped green snake", seed=1, resolution=64, texture_size=512)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(load_model(SMALL))


def made(pipeline: Pipeline, **settings: object) -> Result:
    *_, result = pipeline.stream(replace(SNAKE, **settings))
    assert isinstance(result, Result)
    return result


def test_default_options_change_no_byte(pipeline: Pipeline) -> None:
    plain = made(pipeline)
    spelled = made(pipeline, floaters=DEFAULT_FLOATERS, smoothing=0, watertight=False)
    assert spelled.request == plain.request
    assert encode(spelled.mesh, "glb") == encode(plain.mesh, "glb")


def test_watertight_repairs_non_manifold_edges(pipeline: Pipeline) -> None:
    """A simplification with two cubes that touch along an edge."""
    touching = np.zeros((2, 2, 2), bool)
    touching[0, 0, 0] = touching[1, 1, 0] = True
    cubes = voxel_surface(touching)

    def with_cubes(mesh: Mesh, budget: int) -> tuple[Mesh, Simplified]:
        few, done = simplify(mesh, budget - len(cubes.faces))
        return joined(few, cubes), done

    with patch.object(finish_module, "simplify", with_cubes):
        few = check(made(pipeline, faces=500).mesh)
        whole = made(pipeline, faces=500, watertight=True)
    assert few.crowded_edges > 0
    assert "more than two faces" in few.sentence
    found = check(whole.mesh)
    assert found.printable, found.sentence
    assert found.faces <= 520
    assert found.volume == pytest.approx(few.volume, rel=0.01)
    assert whole.mesh.texture is not None
    assert whole.mesh.normal_map is not None


def test_smoothing_disables_the_normal_map(pipeline: Pipeline) -> None:
    rough, even = made(pipeline, faces=None), made(pipeline, faces=None, smoothing=20)
    assert rough.request.normal_map
    assert not even.request.normal_map
    assert even.mesh.normal_map is None
    assert even.mesh.tangents is None
    assert even.mesh.texture is not None
    before, after = check(rough.mesh), check(even.mesh)
    assert after.printable
    assert after.faces == before.faces
    assert after.volume == pytest.approx(before.volume, rel=0.02)
    assert after.area < before.area


def test_floaters_option(pipeline: Pipeline) -> None:
    """A copy of the object next to it at a quarter of its size: a sixteenth of its area."""

    def with_a_copy(field: object, resolution: int) -> object:
        surface = extract(field, resolution)
        whole, _ = drop_floaters(Mesh(surface.vertices, surface.faces), 1.0)
        both = joined(whole, whole.replace(vertices=whole.vertices / 4 + 3))
        return replace(surface, vertices=both.vertices, faces=both.faces)

    with patch.object(pipeline_module, "extract", with_a_copy):
        pieces = {
            share: check(made(pipeline, floaters=share, unwrap="none").mesh).components
            for share in (0, 0.01, 0.05, 0.08, 1.0)
        }
    assert pieces == {0: 2, 0.01: 2, 0.05: 2, 0.08: 1, 1.0: 1}


def test_watertight_falls_back_to_unsimplified_mesh(pipeline: Pipeline) -> None:
    """A simplification that leaves a hole."""

    def torn(mesh: Mesh, budget: int) -> tuple[Mesh, None]:
        return mesh.replace(faces=mesh.faces[1:]), None

    whole = made(pipeline, faces=None, unwrap="none")
    assert not made(pipeline, faces=500, watertight=True, unwrap="none").unsimplified
    with patch.object(finish_module, "simplify", torn):
        result = made(pipeline, faces=500, watertight=True, unwrap="none")
    assert result.unsimplified
    assert check(result.mesh).printable
    assert torch.equal(result.mesh.faces, whole.mesh.faces)


def test_open_surface_is_refused(pipeline: Pipeline) -> None:
    def torn(field: object, resolution: int) -> object:
        surface = extract(field, resolution)
        return replace(surface, faces=surface.faces[1:])

    with (
        patch.object(pipeline_module, "extract", torn),
        pytest.raises(UserError, match="cannot be made watertight"),
    ):
        made(pipeline, watertight=True)
