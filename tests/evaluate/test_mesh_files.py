"""Meshes of other programs: which file belongs to which prompt, and what is read from each format."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from tests.helpers.shapes import colored, picture, textured
from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.mesh_matching import match_files
from triplaneturbo.evaluate.protocols import PRD
from triplaneturbo.evaluate.views import render_views
from triplaneturbo.mesh.io import encode
from triplaneturbo.mesh.io.reader import load_mesh
from triplaneturbo.mesh.mesh import Mesh

VIEWS = replace(PRD.views, size=64)
PROMPTS = ("a red cup", "A DSLR photo of a cat, 4K!", "a hat", "ein Bär")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def difference(one: Mesh, other: Mesh) -> float:
    """Mean difference of the views of two meshes, in units of 1 of 255."""
    return float(np.abs(render_views(one, VIEWS).astype(int) - render_views(other, VIEWS)).mean())


def test_files_are_named_after_prompts(tmp_path: Path) -> None:
    touch(tmp_path, "a_red_cup.glb", "a dslr photo of a cat, 4k!/model.OBJ", "ein Bär.ply", "a dog.glb")
    touch(tmp_path, "readme.txt", "a dslr photo of a cat, 4k!/texture.png")
    found, unmatched = match_files(tmp_path, PROMPTS)
    assert {prompt: path.name for prompt, path in found.items()} == {
        "a red cup": "a_red_cup.glb",
        "A DSLR photo of a cat, 4K!": "model.OBJ",
        "ein Bär": "ein Bär.ply",
    }
    assert list(found) == [prompt for prompt in PROMPTS if prompt in found]
    assert [path.name for path in unmatched] == ["a dog.glb"]


@pytest.mark.parametrize(
    ("files", "prompts", "message"),
    [
        ([], PROMPTS, "contains no mesh"),
        (["a dog.glb"], PROMPTS, "named after a prompt"),
        (["a hat.glb", "a_hat.obj"], PROMPTS, "belong to"),
        (["a hat.glb"], ("a hat", "a hat!"), "same file name"),
    ],
)
def test_incomplete_folders_are_refused(
    tmp_path: Path, files: list[str], prompts: tuple, message: str
) -> None:
    touch(tmp_path, *files)
    with pytest.raises(UserError, match=message):
        match_files(tmp_path, prompts)


@pytest.mark.parametrize("name", ["texture.glb", "texture.obj", "colors.glb", "colors.obj", "colors.ply"])
def test_written_meshes_are_read_unchanged(tmp_path: Path, name: str) -> None:
    mesh = textured() if name.startswith("texture") else colored()
    format = name.partition(".")[2]
    data = encode(mesh, format, Path(name).stem)
    if format == "obj":
        zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    else:
        (tmp_path / name).write_bytes(data)
    read = load_mesh(tmp_path / name)
    assert read is not None
    assert difference(read, mesh) < 0.5  # an OBJ and a PLY weld the seam, where the colours differ
    gray = mesh.replace(texture=None, uv=None, colors=None)
    assert difference(gray, mesh) > 5  # the measure tells colours apart


def test_scene_parts_keep_transforms_and_textures(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    shape = textured()
    whole = []
    for number in range(2):
        vertices = shape.vertices.numpy()[:, [1, 2, 0]]  # y up, front +z
        image = picture(16 * (1 + number), 32, seed=number) // (1 + number)
        uv = shape.uv.numpy() * (1, -1) + (0, 1)
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(image))
        visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
        part = trimesh.Trimesh(vertices, shape.faces.numpy(), visual=visual, process=False)
        scene.add_geometry(part, transform=trimesh.transformations.translation_matrix((2.5 * number, 0, 0)))
        moved = shape.vertices + torch.tensor([0, 2.5 * number, 0])
        whole.append(shape.replace(vertices=moved, texture=image))
    (tmp_path / "two.glb").write_bytes(scene.export(file_type="glb"))
    read = load_mesh(tmp_path / "two.glb")
    assert read is not None
    assert read.texture.shape == (48, 32, 3)
    assert len(read.faces) == 2 * len(shape.faces)
    views = render_views(read, VIEWS)[0].astype(int)
    # From the front, +y is to the right: each half shows one part.
    centre = Mesh(read.vertices, read.faces).bounds.mean(0)
    for number, part in enumerate(whole):
        alone = part.replace(vertices=part.vertices - centre)
        scale = 1.8 / float((read.bounds[1] - read.bounds[0]).max())
        columns = slice(34, 64) if number else slice(0, 30)
        expected = _unframed(alone.replace(vertices=alone.vertices * scale))[:, columns]
        assert np.abs(views[:, columns] - expected).mean() < 1


def _unframed(mesh: Mesh) -> np.ndarray:
    """The first view of a mesh that is not framed: two far, tiny triangles keep its place."""
    corner = torch.tensor([[0.9, 0.9, 0.9], [-0.9, -0.9, -0.9]]).repeat_interleave(3, 0)
    start = len(mesh.vertices)
    faces = torch.tensor([[start, start + 1, start + 2], [start + 3, start + 4, start + 5]])
    uv = torch.zeros(6, 2)
    return render_views(
        mesh.replace(
            vertices=torch.cat((mesh.vertices, corner)),
            faces=torch.cat((mesh.faces, faces)),
            uv=torch.cat((mesh.uv, uv)),
        ),
        VIEWS,
    )[0].astype(int)


def test_glb_colour_factor_is_linear(tmp_path: Path) -> None:
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[0.5, 0.5, 0.5, 1.0])
    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(material=material)
    box.export(tmp_path / "box.glb")
    read = load_mesh(tmp_path / "box.glb")
    assert read is not None
    assert read.colors[0, 0].item() == pytest.approx(0.735, abs=0.01)


def test_empty_and_broken_files_are_refused(tmp_path: Path) -> None:
    trimesh.Trimesh(np.zeros((1, 3)), np.zeros((0, 3), dtype=int)).export(tmp_path / "empty.ply")
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    assert load_mesh(tmp_path / "empty.ply") is None
    assert load_mesh(tmp_path / "empty.obj") is None
    for name, data in (("a.glb", b"glTF nonsense"), ("b.ply", b"ply\nnothing"), ("c.glb", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"Cannot read .*{name}"):
            load_mesh(tmp_path / name)
