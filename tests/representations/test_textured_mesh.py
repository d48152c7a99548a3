"""The texture of a given mesh as a representation: only texels change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from tests.helpers import toy
from triplaneturbo.distill.ptd import Refiner, RefineSettings
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.uv.unwrap import unwrap
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.representations.textured_mesh import TexturedMesh, TextureOptions
from triplaneturbo.teachers.closed_form import ClosedFormGeometry, ClosedFormRGB
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.toyworld.scene.view_renderer import NOTHING
from triplaneturbo.toyworld.training.sizes import make_scheduler

OPTIONS = TextureOptions(size=toy.SIZE, texture_size=512)
SETTINGS = RefineSettings(steps=12, teachers={"rgb": TeacherSettings(kind="sds")}, path="none", warmup=0)


def box() -> Mesh:
    """A flat box of the shape of the toy problem's first object, in millimetres and off centre."""
    solid = trimesh.creation.box((700, 700, 250))
    vertices = torch.from_numpy(np.array(solid.vertices, np.float32)) + 1000
    return Mesh(vertices, torch.from_numpy(np.array(solid.faces, np.int64)))


def textured(color: tuple[int, int, int] = (128, 128, 128), size: int = 64) -> Mesh:
    mesh = unwrap(box(), texture_size=512)
    return mesh.replace(texture=np.full((size, size, 3), color, np.uint8))


def scene() -> SceneBatch:
    return toy.scene(torch.Generator().manual_seed(0))


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_teacher_paints_the_mesh_and_changes_nothing_else() -> None:
    mesh = textured()
    asset = TexturedMesh(mesh, OPTIONS)
    refiner = Refiner(asset, [toy.teachers()[0]], toy.scene, replace(SETTINGS, steps=40))
    while not refiner.finished:
        refiner.step()
    made = asset.export()
    for part in ("vertices", "faces", "uv"):
        assert torch.equal(getattr(made, part), getattr(mesh, part))
    assert made.texture is not None
    assert made.texture.shape == (64, 64, 3)
    rendered = asset.render(scene(), rng()).renderings["mesh"]
    # The box is larger than the teacher's, whose pictures show the background around it.
    known = torch.from_numpy(toy.views(toy.CAPTIONS[0]).paint != NOTHING)[None]
    mean = rendered.rgb[(rendered.opacity > 0) & known].mean(0)
    red = torch.tensor([0.84, 0.12, 0.13])
    assert (mean - red).abs().max() < 0.12, mean


def test_without_a_step_the_texture_keeps_every_byte() -> None:
    texture = np.random.default_rng(0).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    asset = TexturedMesh(textured().replace(texture=texture), OPTIONS)
    assert np.array_equal(asset.texture(), texture)


def test_the_rendering_shows_the_texture_on_the_background() -> None:
    rendered = TexturedMesh(textured((200, 100, 50)), OPTIONS).render(scene(), rng()).renderings["mesh"]
    inside = rendered.opacity > 0
    assert 0.1 < float(inside.float().mean()) < 0.9
    torch.testing.assert_close(
        rendered.rgb[inside], (torch.tensor([200, 100, 50]) / 255).expand(int(inside.sum()), 3),
        atol=1e-4, rtol=0,
    )  # fmt: skip
    ground = scene().background[:, None, None, None].expand_as(rendered.rgb)
    assert torch.equal(rendered.rgb[~inside], ground[~inside])


def test_gradients_equal_those_of_the_texture_itself() -> None:
    """The finest level of the pyramid, sampled texel by texel in plain torch."""
    asset = TexturedMesh(textured((200, 100, 50)), replace(OPTIONS, levels=1))
    weights = torch.rand(1, toy.VIEWS, toy.SIZE, toy.SIZE, 3, generator=rng())
    (asset.render(scene(), rng()).renderings["mesh"].rgb * weights).sum().backward()
    gradient = asset.pyramid[0].grad
    assert gradient is not None
    step = torch.zeros_like(gradient)
    rows = (gradient.abs().sum(-1) > 0).nonzero()[::97]
    for row, column in rows.tolist():
        values = []
        for sign in (1, -1):
            step.zero_()[row, column, 0] = sign * 0.05
            with torch.no_grad():
                asset.pyramid[0].copy_(step)
                image = asset.render(scene(), rng()).renderings["mesh"].rgb
            values.append(float((image.double() * weights).sum()))
        expected = (values[0] - values[1]) / 0.1
        assert float(gradient[row, column, 0]) == pytest.approx(expected, rel=0.02, abs=2e-3)


def test_texture_coordinates_repeat_outside_of_the_image() -> None:
    mesh = textured()
    texture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    mesh = mesh.replace(texture=texture)
    assert mesh.uv is not None
    images = [
        TexturedMesh(mesh.replace(uv=mesh.uv + shift), OPTIONS).render(scene(), rng()).renderings["mesh"].rgb
        for shift in (0, 3)
    ]
    torch.testing.assert_close(images[1], images[0], atol=2e-3, rtol=0)


def test_vertex_colours_are_the_start_where_there_is_no_texture() -> None:
    mesh = box()
    color = torch.tensor([0.2, 0.6, 0.4])
    asset = TexturedMesh(mesh.replace(colors=color.expand(len(mesh.vertices), 3)), OPTIONS)
    made = asset.export()
    assert made.texture is not None
    assert np.abs(made.texture.astype(float) / 255 - color.numpy()).max() < 0.003
    assert made.colors is None
    corners = made.vertices[made.faces].sum(1)
    assert torch.equal(corners, mesh.vertices[mesh.faces].sum(1))


def test_state_is_restored() -> None:
    asset = TexturedMesh(textured(), OPTIONS)
    refiner = Refiner(asset, [toy.teachers()[0]], toy.scene, replace(SETTINGS, steps=2))
    refiner.step()
    other = TexturedMesh(textured(), OPTIONS)
    assert not np.array_equal(other.texture(), asset.texture())
    other.load_state_dict(asset.state_dict())
    assert np.array_equal(other.texture(), asset.texture())


def test_a_teacher_of_the_shape_is_refused() -> None:
    alphas = make_scheduler().alphas_cumprod
    teachers = [ClosedFormRGB(alphas, toy.data), ClosedFormGeometry(alphas, toy.data)]
    settings = replace(SETTINGS, teachers={"geometry": TeacherSettings(kind="sds")})
    refiner = Refiner(TexturedMesh(textured(), OPTIONS), teachers, toy.scene, settings)
    with pytest.raises(UserError, match="cannot read the renderings"):
        refiner.step()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": torch.full((24, 3), 2.0)}, "no extent"),
        ({"vertices": torch.full((24, 3), torch.nan)}, "no extent, or positions that are not finite"),
        ({"uv": torch.full((24, 2), torch.inf)}, "texture coordinates that are not finite"),
        ({"texture": np.zeros((8, 5000, 3), np.uint8)}, "5000 x 8 texels"),
    ],
)
def test_invalid_meshes_are_refused(change: dict[str, object], message: str) -> None:
    mesh = textured()
    count = len(mesh.vertices)
    change = {k: v[:1].expand(count, -1) if isinstance(v, torch.Tensor) else v for k, v in change.items()}
    with pytest.raises(UserError, match=message):
        TexturedMesh(mesh.replace(**change), OPTIONS)
