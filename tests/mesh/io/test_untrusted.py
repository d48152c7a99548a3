"""Meshes of unknown senders: good ones are read, and what a hostile one claims or refers to is refused."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io import untrusted
from triplaneturbo.mesh.io.untrusted import load_untrusted

MOST = 1000


def box(texture: tuple[int, int] | None = None) -> trimesh.Trimesh:
    made = trimesh.creation.box()
    if texture is not None:
        image = Image.fromarray(np.full((*texture, 3), 90, np.uint8))
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
        made.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    return made


def changed(change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return a GLB of a textured box whose JSON is changed."""
    data = trimesh.Scene(box((4, 4))).export(file_type="glb")
    size = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + size])
    change(tree)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl"])
def test_all_four_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"box.{suffix}"
    box((4, 4) if suffix == "glb" else None).export(path)
    mesh = load_untrusted(path, MOST)
    assert mesh is not None
    assert len(mesh.faces) == 12
    assert (mesh.texture is not None) == (suffix == "glb")


def test_other_files_are_not_read(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "secret.png")
    (tmp_path / "box.mtl").write_text("newmtl m\nKd 1 0 0\nmap_Kd secret.png\n")
    (tmp_path / "box.obj").write_text(
        "mtllib box.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n"
    )
    assert trimesh.load(tmp_path / "box.obj").visual.material.image is not None
    mesh = load_untrusted(tmp_path / "box.obj", MOST)
    assert mesh is not None
    assert mesh.texture is None or (mesh.texture == mesh.texture[0, 0, 0]).all()  # trimesh's default grey


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of the value at a path such as "accessors/0/count"."""

    def change(tree: Any) -> None:
        *parts, last = (int(part) if part.isdigit() else part for part in path.split("/"))
        for part in parts:
            tree = tree[part]
        tree[last] = value

    return change


def _elsewhere(tree: dict[str, Any]) -> None:
    tree["bufferViews"][tree["images"][0]["bufferView"]]["buffer"] = 1


def _many(tree: dict[str, Any]) -> None:
    tree["nodes"] = [{"mesh": 0} for _ in range(100)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_set("images/0", {"uri": "/etc/passwd"}), "refers to other files"),
        (_set("buffers/0/uri", "http://example.com/a.bin"), "refers to other files"),
        (_set("accessors/0/count", 10**12), "is too large; reduce it to at most 1,000 faces"),
        (_set("accessors/0/count", -1), "is too large; reduce it to at most 1,000 faces"),
        (_many, "is too large; reduce it to at most 1,000 faces in few parts"),
        (_set("extensionsRequired", ["KHR_draco_mesh_compression"]), "needs extensions of glTF"),
        (
            _set("materials/0/extensions", {"KHR_materials_pbrSpecularGlossiness": {}}),
            "needs extensions of glTF",
        ),
        (
            _set("meshes/0/primitives/0/extensions", {"KHR_draco_mesh_compression": {}}),
            "needs extensions of glTF",
        ),
        (_set("images/0/bufferView", 0), "neither PNG, JPEG nor WebP"),
        (_elsewhere, "is not a valid GLB file"),
        (_set("meshes/0/primitives/0/indices", 99), "is not a valid GLB file"),
        (_set("accessors", {"count": 3}), "is not a valid GLB file"),
    ],
)
def test_claims_of_a_glb_are_checked_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    monkeypatch.setattr(untrusted.trimesh, "load_scene", _never)
    (tmp_path / "box.glb").write_bytes(changed(change))
    with pytest.raises(UserError, match=sentence):
        load_untrusted(tmp_path / "box.glb", MOST)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl", "pkl"])
def test_a_pickle_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"trap.{suffix}").write_bytes(pickle.dumps(Trap()))
    with contextlib.suppress(UserError):
        assert load_untrusted(Path(f"trap.{suffix}"), MOST) is None
    assert not Path("unpickled").exists()


def _never(*_: object, **__: object) -> None:
    raise AssertionError("parsed")


def test_a_large_texture_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MOST_TEXELS", 64)
    monkeypatch.setattr(untrusted.trimesh, "load_scene", _never)
    (tmp_path / "box.glb").write_bytes(trimesh.Scene(box((4, 65))).export(file_type="glb"))
    with pytest.raises(UserError, match="a texture has more than 64 texels a side"):
        load_untrusted(tmp_path / "box.glb", MOST)


def test_the_unchanged_glb_is_read(tmp_path: Path) -> None:
    (tmp_path / "box.glb").write_bytes(changed(lambda tree: None))
    mesh = load_untrusted(tmp_path / "box.glb", MOST)
    assert mesh is not None
    assert len(mesh.faces) == len(
        trimesh.load(io.BytesIO(changed(lambda tree: None)), "glb", force="mesh").faces
    )


def test_the_copies_of_a_texture_are_limited_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "MOST_TEXELS", 16)
    for parts in (4, 5):
        scene = trimesh.Scene()
        for _ in range(parts):
            scene.add_geometry(box((16, 16)))
        (tmp_path / f"{parts}.glb").write_bytes(scene.export(file_type="glb"))
    assert load_untrusted(tmp_path / "4.glb", MOST) is not None
    with pytest.raises(UserError, match="the parts have too many large textures"):
        load_untrusted(tmp_path / "5.glb", MOST)
