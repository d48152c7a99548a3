"""The camera of a picture, the picture as an additional view, and the fit of an asset to a mesh."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
import trimesh
from PIL import Image

from tests.helpers.seeded import seeded
from triplaneturbo.distill.ptd import Refiner, RefineSettings
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.voxels import overlap
from triplaneturbo.refine.fit_error import fit_error
from triplaneturbo.refine.given_image import GivenImage, read_given_image
from triplaneturbo.refine.image_view import ELEVATION, match_view, views
from triplaneturbo.refine.pictures import picture
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.representations.gaussian_asset import GaussianAsset
from triplaneturbo.representations.gaussians import Gaussians

SIZE = 48


def asset(size: int = SIZE) -> GaussianAsset:
    """A red ball at +x, a green one at +y and a small blue one above -x."""
    points = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [-0.5, 0.0, 0.4]])
    colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.9]])
    points = (points[:, None] + 0.12 * torch.randn(3, 60, 3, generator=seeded())).flatten(0, 1)
    gaussians = Gaussians.from_points(
        points,
        colors.repeat_interleave(60, 0),
        0.08,
        torch.nn.functional.normalize(points, dim=1),
        opacity=0.9,
    )
    made = GaussianAsset(gaussians)
    made.options = type(made.options)(size=size)
    return made


def photographed(azimuth: float, path: Path) -> GivenImage:
    """A picture of the asset from an azimuth, larger and moved to a side, on white."""
    ((_, _, seen),) = views(asset(200), [azimuth], ELEVATION)
    solid = seen.opacity[0, 0, ..., None] > 0.5
    rgb = torch.where(solid, seen.rgb[0, 0] / seen.opacity[0, 0, ..., None], 1)
    small = Image.fromarray((rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    large = Image.new("RGB", (400, 300), "white")
    large.paste(small.resize((260, 260)), (130, 10))
    large.save(path)
    return read_given_image(path)


@pytest.mark.parametrize("azimuth", [30.0, 165.0, 285.0])
def test_the_azimuth_of_a_picture_is_found(tmp_path: Path, azimuth: float) -> None:
    view, found = match_view(asset(), photographed(azimuth, tmp_path / "a.png"), SIZE)
    assert found == azimuth
    ((_, camera, seen),) = views(asset(), [azimuth], ELEVATION)
    assert torch.equal(view.camera.c2w, camera.c2w)
    assert overlap((view.opacity > 0.5).numpy(), (seen.opacity[0, 0] > 0.5).numpy()) > 0.75


def test_a_refinement_follows_the_picture(tmp_path: Path) -> None:
    """Without any teacher, the asset becomes what the picture shows."""
    image = photographed(30.0, tmp_path / "a.png")
    changed = GivenImage(image.rgb.flip(-1), image.opacity, image.digest)  # red is blue
    grey = asset()
    view, _ = match_view(grey, changed, SIZE)

    def draw(rng: torch.Generator) -> SceneBatch:
        return SceneBatch([""], orbit(0.0, 0.0, 2.5), 1, torch.rand(1, 3, generator=rng))

    refiner = Refiner(grey, (), draw, RefineSettings(steps=40, path="none"), reference=view)
    first = refiner.step()
    assert first.keys() == {"image splatting", "image splatting mask"}
    while not refiner.finished:
        last = refiner.step()
    assert last["image splatting"] < 0.6 * first["image splatting"]


def test_without_a_reference_nothing_changes() -> None:
    def draw(rng: torch.Generator) -> SceneBatch:
        return SceneBatch([""], orbit(0.0, 0.0, 2.5), 1, torch.rand(1, 3, generator=rng))

    refiner = Refiner(asset(), (), draw, RefineSettings(steps=2, path="none"))
    assert refiner.step() == {}


def test_a_picture_shows_four_sides() -> None:
    with Image.open(io.BytesIO(picture(asset()))) as image:
        assert image.size == (4 * SIZE, SIZE)
        assert len(image.getcolors(10**6)) > 100


def test_the_fit_error_of_gaussians_counts_what_is_missing() -> None:
    box = trimesh.creation.box((1.2, 0.6, 0.8))
    mesh = Mesh(torch.tensor(box.vertices.copy()).float(), torch.tensor(box.faces.copy()))
    mesh = mesh.replace(colors=torch.full_like(mesh.vertices, 0.3))
    own = GaussianAsset._on_surface(mesh, 64, seeded(), torch.device("cpu"))
    good = fit_error(own, mesh, 64)
    assert good.outline_iou > 0.85
    assert good.color < 0.05
    brighter = fit_error(own, mesh.replace(colors=torch.full_like(mesh.vertices, 0.8)), 64)
    assert brighter.color == pytest.approx(0.5, abs=0.05)
    half = mesh.replace(vertices=mesh.vertices * torch.tensor([1.0, 0.5, 0.5]))
    assert fit_error(own, half, 64).outline_iou < 0.6
    assert good.sentence("Gaussians").startswith("Fit to the mesh as Gaussians: the outlines overlap by ")
