"""Levels of detail: one atlas for all, in one GLB that opens everywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pygltflib
import pytest
import torch
import trimesh

from tests.helpers.gltf_validator import assert_valid_glb
from tests.helpers.pace import patience
from tests.helpers.shapes import ellipsoid
from triplaneturbo.mesh.finish import finish
from triplaneturbo.mesh.io import Placement, encode, save
from triplaneturbo.mesh.io.gltf import to_glb
from triplaneturbo.mesh.lods import FEWEST_FACES, levels_of_detail
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import tidy, weld
from triplaneturbo.mesh.uv.atlas import rasterize_atlas
from triplaneturbo.request import UNWRAPS, Request
from triplaneturbo.utils.generators import exhaust


class Stripes:
    """A field whose colour is its position."""

    def rgb(self, points: torch.Tensor) -> torch.Tensor:
        return 0.5 + 0.5 * points

    def sdf(self, points: torch.Tensor) -> torch.Tensor:
        return (points / points.new_tensor([0.9, 0.6, 0.4])).norm(dim=1) - 1


def surface(rows: int = 32, columns: int = 60) -> Mesh:
    vertices, faces, _, _ = ellipsoid(rows, columns)
    welded = weld(vertices)
    return tidy(Mesh(vertices[welded.first], welded.index[faces]))


def finished(mesh: Mesh, **settings: object) -> Mesh:
    request = Request("a ball", faces=None, texture_size=512, **settings).checked()  # type: ignore[arg-type]
    return exhaust(finish(mesh, Stripes(), request, 64)).mesh


@pytest.mark.parametrize("method", [name for name in UNWRAPS if name != "none"])
def test_each_level_halves_the_faces_and_all_share_one_atlas(method: str) -> None:
    mesh = finished(surface(), unwrap=method, lods=4)
    levels = [mesh, *mesh.lods]
    faces = [len(level.faces) for level in levels]
    assert faces[0] == len(surface().faces)
    assert faces[1:] == pytest.approx([faces[0] / 2, faces[0] / 4, faces[0] / 8], rel=0.02)
    assert all(level.texture is mesh.texture and level.normal_map is mesh.normal_map for level in levels)
    texels = []
    for level in levels:
        assert level.uv is not None
        assert mesh.texture is not None
        radius = (level.vertices / level.vertices.new_tensor([0.9, 0.6, 0.4])).norm(dim=1)
        assert (radius - 1).abs().max() < 0.1  # at its place in the shape, not apart or shrunk
        atlas = rasterize_atlas(level.uv, level.faces, 512)
        texels.append(set(atlas.texels.tolist()))
        corners = level.vertices[level.faces[atlas.face]]  # [N, 3, 3]
        points = (corners * atlas.bary[..., None]).sum(1)
        found = torch.from_numpy(mesh.texture.reshape(-1, 3)).float()[atlas.texels] / 255
        # A texel at the border of two charts belongs to one of them.
        assert (found - (0.5 + 0.5 * points)).abs().quantile(0.99) < 0.01
    for first in range(4):
        for second in range(first):
            shared = texels[first] & texels[second]
            assert len(shared) < 0.01 * len(texels[first])  # at the borders of charts


def test_one_level_is_the_mesh_without_levels() -> None:
    mesh = surface()
    assert encode(finished(mesh, lods=1), "glb") == encode(finished(mesh), "glb")
    assert finished(mesh).lods == ()


def test_vertex_colours_have_levels_too() -> None:
    mesh = finished(surface(), unwrap="none", lods=3)
    assert len(mesh.lods) == 2
    for level in (mesh, *mesh.lods):
        assert level.colors is not None
        torch.testing.assert_close(level.colors, 0.5 + 0.5 * level.vertices)


def test_mesh_of_20_faces_has_one_level() -> None:
    mesh = Mesh(*(torch.from_numpy(np.array(part)) for part in _icosahedron()))
    assert len(levels_of_detail(mesh, 4)) == 1
    assert len(mesh.faces) < FEWEST_FACES
    assert finished(mesh, lods=4).lods == ()


def _icosahedron() -> tuple[np.ndarray, np.ndarray]:
    solid = trimesh.creation.icosahedron()
    return solid.vertices.astype(np.float32) * 0.8, solid.faces.astype(np.int64)


@pytest.fixture(scope="module")
def levels() -> Mesh:
    return finished(surface(), lods=4)


def test_glb_has_a_node_for_each_level(levels: Mesh) -> None:
    data = to_glb(levels, placement=Placement(0.5, pivot="ground"))
    assert_valid_glb(data)
    document = json.loads(pygltflib.GLTF2.load_from_bytes(data).to_json())
    assert [node["name"] for node in document["nodes"]] == [f"object_LOD{level}" for level in range(4)]
    assert document["scene"] == 0
    assert [scene["nodes"] for scene in document["scenes"]] == [[0], [0, 1, 2, 3]]
    assert "extensionsUsed" not in document or document["extensionsUsed"] == []
    assert len(document["materials"]) == 1
    assert len(document["images"]) == 2
    low, high = zip(*(_bounds(document, level) for level in range(4)), strict=True)
    np.testing.assert_allclose(low, np.broadcast_to(low[0], (4, 3)), atol=0.02)  # all at the same place
    np.testing.assert_allclose(high, np.broadcast_to(high[0], (4, 3)), atol=0.02)
    assert np.subtract(high[0], low[0]).max() == pytest.approx(0.5, abs=1e-6)


def _bounds(document: dict, level: int) -> tuple[list[float], list[float]]:
    position = document["meshes"][level]["primitives"][0]["attributes"]["POSITION"]
    return document["accessors"][position]["min"], document["accessors"][position]["max"]


def test_default_scene_has_the_first_level(levels: Mesh, tmp_path: Path) -> None:
    path = save(levels, tmp_path / "a.glb")
    scene = trimesh.load_scene(path)
    (node,) = scene.graph.nodes_geometry
    assert len(scene.geometry[scene.graph[node][1]].faces) == len(levels.faces)


def test_blender_opens_all_levels(levels: Mesh, tmp_path: Path) -> None:
    program = shutil.which("blender")
    if program is None:
        pytest.skip("Blender is not installed (apt install blender python3-numpy)")
    path = save(levels, tmp_path / "a.glb")
    script = tmp_path / "count.py"
    script.write_text(
        "import bpy, json, numpy\n"
        "numpy.bool = bool\n"
        f"bpy.ops.import_scene.gltf(filepath={str(path)!r})\n"
        "found = {o.name: len(o.data.polygons) for o in bpy.data.objects if o.name.startswith('object')}\n"
        "print('FOUND', json.dumps(found))\n"
    )
    done = subprocess.run(
        [program, "-b", "--factory-startup", "--python-exit-code", "1", "-P", str(script)],
        capture_output=True, text=True, timeout=patience(180),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    expected = {f"object_LOD{k}": len(level.faces) for k, level in enumerate((levels, *levels.lods))}
    assert json.loads(line.removeprefix("FOUND")) == expected
