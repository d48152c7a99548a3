"""Mesh files: the Khronos validator, and each file read by trimesh against the written mesh."""

import io
import zipfile

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from tests.helpers.gltf import accessor
from tests.helpers.gltf_validator import assert_valid_glb
from tests.helpers.mesh_readers import read, read_obj
from tests.helpers.shapes import TURN, colored, picture, tetrahedron, textured
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io import Placement, encode, format_of, save
from triplaneturbo.mesh.io.common import safe_name, to_file_axes
from triplaneturbo.mesh.io.gltf import to_glb
from triplaneturbo.mesh.io.obj import to_obj_zip
from triplaneturbo.mesh.io.points import to_ply, to_stl
from triplaneturbo.mesh.io.registry import suffixes
from triplaneturbo.mesh.mesh import Mesh

CASES = {
    "textured": lambda: (textured(), "png"),
    "jpeg": lambda: (textured(), "jpeg"),
    "normal map": lambda: (textured(normal_map=True), "png"),
    "normal map, jpeg": lambda: (textured(normal_map=True), "jpeg"),
    "odd image": lambda: (textured((37, 53)), "png"),
    "one pixel": lambda: (textured((1, 1)), "png"),
    "odd jpeg": lambda: (textured((3, 701)), "jpeg"),
    "colours": lambda: (colored(), "png"),
    "plain": lambda: (colored().replace(colors=None), "png"),
    "tiny": lambda: (tetrahedron(), "png"),
    "many vertices": lambda: (textured(rows=256, columns=256), "png"),
    "many coloured vertices": lambda: (colored(256, 256), "png"),
    "65535 vertices": lambda: (colored(256, 254), "png"),  # the maximum for 16-bit indices
    "unused tangents": lambda: (textured(normal_map=True).replace(normal_map=None), "png"),
    "given normals": lambda: (
        colored().replace(normals=torch.nn.functional.normalize(torch.rand(273, 3) - 0.5, dim=1) * 3),
        "png",
    ),
    "bad normals": lambda: (colored().replace(normals=torch.full((273, 3), float("nan"))), "png"),
    "bad colours": lambda: (colored().replace(colors=torch.rand(273, 3) * 9 - 4), "png"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_glb_is_valid(name):
    mesh, image = CASES[name]()
    glb = to_glb(mesh, image)
    assert glb == to_glb(mesh, image)
    infos = assert_valid_glb(glb)
    # The validator may only note that the sides of an image are not powers of two.
    assert set(infos) == ({"IMAGE_NPOT_DIMENSIONS"} if name.startswith("odd") else set())


def look_up(image, uv):
    """Sample an image [H, W, 3] bilinearly at uv [N, 2], v downward."""
    height, width = image.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip(uv[:, 1] * height - 0.5, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    upper = image[top, left] * (1 - fx) + image[top, right] * fx
    lower = image[bottom, left] * (1 - fx) + image[bottom, right] * fx
    return upper * (1 - fy) + lower * fy


@pytest.mark.parametrize("kind", ["glb", "obj"])
@pytest.mark.parametrize("size", [(64, 128), (37, 53)])
def test_trimesh_reads_the_texture(kind, size):
    mesh = textured(size)
    data = encode(mesh, kind)
    back = read(data, "glb") if kind == "glb" else read_obj(data)
    expected = (mesh.vertices @ TURN.T).numpy()
    np.testing.assert_allclose(back.bounds, [expected.min(0), expected.max(0)], atol=1e-6)
    material = back.visual.material
    image = np.asarray((material.baseColorTexture if kind == "glb" else material.image).convert("RGB"))
    assert image.shape == mesh.texture.shape
    assert np.abs(image.astype(int) - mesh.texture.astype(int)).max() <= 2
    # Colour at points of the surface. trimesh's v grows upward, in both formats.
    generator = np.random.default_rng(0)
    weights = generator.dirichlet((1, 1, 1), len(mesh.faces))
    uv = np.einsum("fc,fcd->fd", weights, mesh.uv[mesh.faces].numpy())
    points = np.einsum("fc,fcd->fd", weights, expected[mesh.faces.numpy()])
    assert len(back.faces) == len(mesh.faces)
    inside, face = cKDTree(back.triangles.mean(1)).query(expected[mesh.faces.numpy()].mean(1))
    assert inside.max() < 1e-5
    bary = trimesh.triangles.points_to_barycentric(back.triangles[face], points)
    their_uv = np.einsum("fc,fcd->fd", bary, np.asarray(back.visual.uv)[back.faces[face]])
    their_uv[:, 1] = 1 - their_uv[:, 1]
    difference = np.abs(look_up(image, their_uv) - look_up(mesh.texture, uv))
    assert difference.max() <= 2


def test_jpeg_is_close_and_smaller():
    mesh = textured((256, 256))
    png, jpeg = to_glb(mesh), to_glb(mesh, "jpeg")
    assert len(jpeg) < len(png)
    image = np.asarray(read(jpeg, "glb").visual.material.baseColorTexture.convert("RGB"))
    assert np.abs(image.astype(int) - mesh.texture.astype(int)).mean() < 3


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl"])  # trimesh does not read USDZ
@pytest.mark.parametrize("make", [textured, colored, tetrahedron])
def test_files_keep_bounds_and_volume_and_are_deterministic(kind, make):
    mesh = make()
    data = encode(mesh, kind)
    assert data == encode(mesh, kind)
    back = read_obj(data) if kind == "obj" else read(data, kind)
    scale = 1000 if kind == "stl" else 1  # millimetres
    expected = mesh.vertices @ TURN.T * scale
    bounds = torch.stack((expected.amin(0), expected.amax(0))).numpy()
    np.testing.assert_allclose(back.bounds, bounds, atol=1e-6 * np.abs(bounds).max())
    original = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy())
    assert back.volume == pytest.approx(original.volume * scale**3, rel=1e-4)
    assert original.volume > 0
    if kind in ("ply", "stl"):
        back.merge_vertices()
        assert back.is_watertight


def test_front_is_plus_z_and_up_is_plus_y():
    front, left, up = torch.eye(3)
    assert to_file_axes(front).tolist() == [0, 0, 1]
    assert to_file_axes(left).tolist() == [1, 0, 0]
    assert to_file_axes(up).tolist() == [0, 1, 0]
    assert torch.linalg.det(to_file_axes(torch.eye(3))) == 1
    assert to_file_axes(front, "z").tolist() == [0, -1, 0]
    assert to_file_axes(up, "z").tolist() == [0, 0, 1]
    assert torch.linalg.det(to_file_axes(torch.eye(3), "z")) == 1


def test_vertex_colours_are_linear_in_a_glb_and_srgb_elsewhere():
    mesh = colored()
    srgb = mesh.colors.numpy().astype(np.float64)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(accessor(to_glb(mesh), "COLOR_0"), linear, atol=1e-6)
    for back in (read(to_ply(mesh), "ply"), read_obj(to_obj_zip(mesh))):
        distance, nearest = cKDTree(mesh.vertices @ TURN.T).query(back.vertices)
        assert distance.max() < 1e-6
        seen = np.asarray(back.visual.vertex_colors)[:, :3] / 255
        on_seam = (
            np.asarray(cKDTree(mesh.vertices).query_ball_point(mesh.vertices, 1e-6, return_length=True)) > 1
        )
        plain = ~on_seam[nearest]
        assert plain.sum() > 150
        np.testing.assert_allclose(seen[plain], srgb[nearest[plain]], atol=0.51 / 255 + 1e-4)


def test_ply_has_vertex_colours_from_the_texture():
    mesh = textured()
    back = read(to_ply(mesh), "ply")
    _, nearest = cKDTree(mesh.vertices @ TURN.T).query(back.vertices)
    expected = look_up(mesh.texture, mesh.uv.numpy())[nearest]
    difference = np.abs(np.asarray(back.visual.vertex_colors)[:, :3] - expected).max(1)
    # On the seam and at the poles several texture coordinates share one vertex.
    assert (difference < 0.6).mean() > 0.9


def test_normals_and_tangents_turn_with_the_mesh():
    mesh = textured(normal_map=True)
    mesh = mesh.replace(normals=torch.nn.functional.normalize(mesh.vertices, dim=1))
    glb = to_glb(mesh)
    np.testing.assert_allclose(accessor(glb, "NORMAL"), mesh.normals @ TURN.T, atol=1e-6)
    np.testing.assert_allclose(accessor(glb, "TANGENT")[:, :3], mesh.tangents[:, :3] @ TURN.T, atol=1e-6)
    np.testing.assert_array_equal(accessor(glb, "TANGENT")[:, 3], mesh.tangents[:, 3])
    np.testing.assert_array_equal(accessor(glb, "TEXCOORD_0"), mesh.uv)


def test_glb_document_content():
    document = pygltflib.GLTF2.load_from_bytes(to_glb(textured(normal_map=True), "jpeg"))
    material = document.materials[0]
    assert material.pbrMetallicRoughness.metallicFactor == 0
    assert material.pbrMetallicRoughness.roughnessFactor == pytest.approx(0.9)
    assert material.doubleSided is False
    assert [image.mimeType for image in document.images] == ["image/jpeg", "image/png"]
    assert len(document.buffers) == 1
    assert document.samplers[0].minFilter == pygltflib.LINEAR_MIPMAP_LINEAR
    assert document.asset.generator.startswith("TriplaneTurbo")
    assert all(view.byteOffset % 4 == 0 for view in document.bufferViews)
    plain = pygltflib.GLTF2.load_from_bytes(to_glb(colored()))
    assert not plain.images
    assert not plain.samplers


def test_indices_use_the_smallest_type():
    def kind(mesh):
        document = pygltflib.GLTF2.load_from_bytes(to_glb(mesh))
        return document.accessors[document.meshes[0].primitives[0].indices].componentType

    assert kind(colored(256, 254)) == pygltflib.UNSIGNED_SHORT
    assert kind(colored(256, 255)) == pygltflib.UNSIGNED_INT


def test_normals_are_scale_independent_and_repaired():
    mesh = colored()
    expected = accessor(to_glb(mesh), "NORMAL")
    np.testing.assert_allclose(
        accessor(to_glb(mesh, placement=Placement(size=0.001)), "NORMAL"), expected, atol=1e-6
    )
    broken = mesh.replace(normals=torch.full((len(mesh.vertices), 3), float("nan")))
    for kind in ("glb", "obj", "ply"):
        assert encode(broken, kind) == encode(mesh, kind)


def test_obj_zip_has_safe_consistent_names():
    data = to_obj_zip(textured(normal_map=True), name="../../a \U0001f344 red/mush\\room\x00\u202e")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        assert names == [f"a_red_mush_room{end}" for end in (".obj", ".mtl", ".png", "_normal.png")]
        assert archive.testzip() is None
        assert b"mtllib a_red_mush_room.mtl\n" in archive.read(names[0])
        assert b"usemtl surface\n" in archive.read(names[0])
        material = archive.read(names[1]).decode()
        assert "newmtl surface\n" in material
        assert "map_Kd a_red_mush_room.png\n" in material
        assert "norm a_red_mush_room_normal.png\n" in material
        assert Image.open(io.BytesIO(archive.read(names[2]))).size == (128, 64)
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_obj_joins_seams():
    mesh = textured()
    data = to_obj_zip(mesh)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        lines = archive.read("mesh.obj").decode().splitlines()
    positions = sum(line.startswith("v ") for line in lines)
    assert positions == len(mesh.vertices.unique(dim=0)) < len(mesh.vertices)
    corners = [[int(c.split("/")[0]) for c in line.split()[1:]] for line in lines if line.startswith("f ")]
    assert trimesh.Trimesh(np.zeros((positions, 3)), np.array(corners) - 1, process=False).is_watertight


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "mesh"),
        ("///", "mesh"),
        ("..", "mesh"),
        ("CON", "_CON"),
        ("lpt1", "_lpt1"),
        ("a red mushroom", "a_red_mushroom"),
        ("x" * 100_000, "x" * 60),
        ("-rf", "rf"),
        ("pilz.obj", "pilz_obj"),
        ("\u202egnp\u00e4", "gnp"),
    ],
)
def test_safe_names(name, expected):
    assert safe_name(name) == expected


def bad_meshes():
    mesh = colored()
    nan, inf = mesh.vertices.clone(), mesh.vertices.clone()
    nan[3, 1], inf[0, 0] = float("nan"), float("-inf")
    uv = textured()
    uv.uv[5, 0] = float("nan")
    return {
        "empty": (mesh.replace(faces=mesh.faces[:0]), "empty"),
        "no vertices": (Mesh(mesh.vertices[:0], mesh.faces[:0]), "empty"),
        "nan": (mesh.replace(vertices=nan), "not finite"),
        "inf": (mesh.replace(vertices=inf), "not finite"),
        "uv": (uv, "not finite"),
    }


@pytest.mark.parametrize("kind", list(suffixes()))
@pytest.mark.parametrize("name", list(bad_meshes()))
def test_invalid_meshes_are_refused(kind, name, tmp_path):
    mesh, message = bad_meshes()[name]
    with pytest.raises(UserError, match=message):
        save(mesh, tmp_path / f"x{suffixes()[kind]}")
    assert list(tmp_path.iterdir()) == []


def test_programming_errors_are_not_user_errors():
    mesh = colored()
    for broken in (
        mesh.replace(faces=mesh.faces + 200),
        mesh.replace(faces=mesh.faces - 1),
        mesh.replace(colors=mesh.colors[:-1]),
        mesh.replace(texture=picture(4, 4)),
        textured().replace(texture=picture(4, 4)[..., :1]),
        textured(normal_map=True).replace(tangents=None),
        textured().replace(texture=picture(4, 4).astype(np.float32)),
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            to_glb(broken)


def test_faces_without_area_are_refused_for_ply_and_stl():
    vertices = torch.zeros(3, 3)
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2]]))
    for write in (to_ply, to_stl):
        with pytest.raises(UserError, match="area"):
            write(mesh)


def test_save_chooses_the_format_by_suffix(tmp_path):
    mesh = textured()
    for kind, suffix in suffixes().items():
        path = save(mesh, tmp_path / "deep" / f"pilz{suffix.upper()}")
        assert path.read_bytes() == encode(mesh, kind, name="pilz")
    assert save(mesh, tmp_path / "download", format="glb").read_bytes() == to_glb(mesh)
    assert save(mesh, tmp_path / "j.glb", texture_format="jpeg").read_bytes() == to_glb(mesh, "jpeg")


@pytest.mark.parametrize(
    ("path", "format", "message"),
    [
        ("a.fbx", None, r"\.glb, \.zip, \.ply, \.stl, \.3mf, \.usdz"),
        ("a", None, r"\.glb, \.zip, \.ply, \.stl, \.3mf, \.usdz"),
        ("a.obj", None, r"\.zip"),
        ("a.obj", "obj", r"\.zip"),
        ("a.obj", "glb", r"\.glb"),
        ("a.ply", "glb", r"\.glb"),
        ("a.glb", "fbx", "glb, obj, ply, stl, 3mf, usdz"),
    ],
)
def test_unknown_formats(path, format, message):
    with pytest.raises(UserError, match=message):
        format_of(path, format)


def test_unknown_choices():
    with pytest.raises(UserError, match="glb, obj, ply, stl, 3mf, usdz"):
        encode(colored(), "fbx")
    with pytest.raises(UserError, match="png"):
        to_glb(textured(), "gif")
