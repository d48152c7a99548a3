"""Fields that are fitted to given meshes, and the signed distances that they are fitted to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from tests.helpers.seeded import seeded
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.signed_distance import signed_distances
from triplaneturbo.mesh.surface_samples import sample_surface
from triplaneturbo.mesh.voxels import centres, filled, overlap
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.representations.field_fit import FitOptions, fit_field
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField
from triplaneturbo.representations.triplane_asset import TriplaneAsset
from triplaneturbo.request import Request

QUICK = FitOptions(iterations=120, voxels=48, nodes=24, samples=20_000, batch=2048)


def converted(shape: trimesh.Trimesh) -> Mesh:
    mesh = Mesh(torch.tensor(shape.vertices.copy()).float(), torch.tensor(shape.faces.copy()))
    return mesh.replace(colors=(mesh.vertices / 2 + 0.5).clamp(0, 1))


def blank() -> TriplaneField:
    torch.manual_seed(0)
    config = GeneratorConfig(plane_channels=8, mlp_width=32, mlp_layers=2, mlp_bias=True, grid_resolution=48)
    return TriplaneField(torch.zeros(6, 8, 32, 32), FieldDecoder(config))


def nodes(size: int) -> np.ndarray:
    axis = centres(size)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)


@pytest.mark.parametrize("change", ["", "inside out", "holes", "flat faces"])
def test_distances_to_a_ball_are_known(change: str) -> None:
    ball = trimesh.creation.icosphere(4, 0.6)
    if change == "inside out":
        ball.invert()
    elif change == "holes":
        ball.update_faces(np.arange(len(ball.faces)) % 40 != 0)
    elif change == "flat faces":
        ball.faces = np.concatenate((ball.faces, np.zeros((5, 3), dtype=int)))
    mesh = converted(ball)
    made = signed_distances(mesh, sample_surface(mesh, 20_000, seeded()), 32).numpy()
    truth = np.linalg.norm(nodes(32), axis=-1) - 0.6
    assert (np.sign(made) == np.sign(truth)).mean() > (0.98 if change == "holes" else 0.999)
    near = np.abs(truth) < 0.1
    assert np.abs(np.abs(made) - np.abs(truth))[near].max() < 0.01
    assert np.abs(np.abs(made) - np.abs(truth)).max() < 0.04


def test_the_axes_of_distances_are_those_of_the_mesh() -> None:
    box = trimesh.creation.box((0.4, 0.8, 1.2), trimesh.transformations.translation_matrix((0.3, -0.1, 0.2)))
    mesh = converted(box)
    made = signed_distances(mesh, sample_surface(mesh, 20_000, seeded()), 40).numpy()
    inside = (np.abs(nodes(40) - (0.3, -0.1, 0.2)) < (0.2, 0.4, 0.6)).all(-1)
    assert np.array_equal(made < 0, inside)


def test_a_field_of_a_torus_has_its_shape_colours_and_place() -> None:
    torus = trimesh.creation.torus(0.6, 0.25)
    torus.apply_transform(trimesh.transformations.translation_matrix((100, 0, 7)))
    given = converted(torus).replace(colors=torch.full((len(torus.vertices), 3), 0.25))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("triplaneturbo.representations.field_fit.FitOptions", lambda: QUICK)
        asset = TriplaneAsset.from_mesh(given, 64, seeded(), Request(""), blank())
    made = asset.export(Request("", resolution=48, unwrap="none", faces=None))
    here = torch.tensor([100.0, 0.0, 7.0])
    volumes = [filled(mesh.vertices - here, mesh.faces, 48) for mesh in (given, made)]
    assert overlap(*volumes) > 0.88
    assert (made.colors - 0.25).abs().mean() < 0.02


def test_the_model_and_its_planes_stay_unchanged() -> None:
    field = blank()
    before = [p.clone() for p in field.fields.parameters()]
    fit_field(converted(trimesh.creation.box()), field, seeded(), FitOptions(2, 16, 8, 1000, 64))
    assert all(torch.equal(p, q) for p, q in zip(before, field.fields.parameters(), strict=True))
    assert not field.planes.any()


def test_a_sheet_encloses_no_volume() -> None:
    sheet = trimesh.Trimesh([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0]], [[0, 1, 2]])
    with pytest.raises(UserError, match="encloses no volume, so it cannot become a field; close its holes"):
        fit_field(converted(sheet), blank(), seeded(), QUICK)
