"""WebP textures, and files of a limited size."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygltflib
import pytest
from PIL import Image

from tests.helpers.gltf_validator import assert_valid_glb
from tests.helpers.pace import patience
from tests.helpers.shapes import colored, picture, textured
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io import encode, save
from triplaneturbo.mesh.io.registry import WRITERS, WriteOptions
from triplaneturbo.mesh.io.size_limit import REDUCTIONS, encode_within
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.placement import AS_MODELLED


def images(data: bytes) -> list[Image.Image]:
    document = pygltflib.GLTF2.load_from_bytes(data)
    blob = document.binary_blob()
    found = []
    for image in document.images:
        view = document.bufferViews[image.bufferView]
        picture = Image.open(io.BytesIO(blob[view.byteOffset : view.byteOffset + view.byteLength]))
        assert image.mimeType == f"image/{picture.format.lower()}"
        found.append(picture)
    return found


def large() -> Mesh:
    """A mesh whose images do not compress well."""
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    return textured(normal_map=True).replace(texture=noise, normal_map=picture(256, 256))


@pytest.mark.parametrize("kind", ["webp", "webp+png"])
def test_webp_textures_are_valid_and_close_to_the_originals(kind: str) -> None:
    mesh = textured(normal_map=True)
    data = encode(mesh, "glb", texture_format=kind)
    assert data == encode(mesh, "glb", texture_format=kind)
    assert_valid_glb(data)
    document = json.loads(pygltflib.GLTF2.load_from_bytes(data).to_json())
    assert document["extensionsUsed"] == ["EXT_texture_webp"]
    required = [] if kind == "webp+png" else ["EXT_texture_webp"]
    assert document.get("extensionsRequired", []) == required
    found = images(data)
    for texture, original in zip(document["textures"], (mesh.texture, mesh.normal_map), strict=True):
        compressed = found[texture["extensions"]["EXT_texture_webp"]["source"]]
        assert compressed.format == "WEBP"
        assert np.abs(np.asarray(compressed).astype(int) - original).mean() < 4
        if kind == "webp+png":
            np.testing.assert_array_equal(np.asarray(found[texture["source"]]), original)
        else:
            assert "source" not in texture


def test_other_formats_have_png_in_place_of_webp() -> None:
    for format in ("obj", "usdz"):
        assert encode(textured(), format, texture_format="webp") == encode(textured(), format)


def test_small_files_are_not_reduced() -> None:
    options = WriteOptions(AS_MODELLED, "mesh", "webp")
    data, note = encode_within(textured(), "glb", options, 1_000_000)
    assert (data, note) == (encode(textured(), "glb", texture_format="webp"), "")


def test_large_files_are_reduced_as_little_as_possible() -> None:
    options = WriteOptions(AS_MODELLED, "mesh", "webp")
    whole = len(encode(large(), "glb", texture_format="webp"))
    data, note = encode_within(large(), "glb", options, whole - 1)
    assert len(data) < whole
    assert images(data)[0].size == (512, 512)
    assert f"has WEBP images of quality {REDUCTIONS[1][0]}" in note
    data, note = encode_within(large(), "glb", options, 80_000)
    assert len(data) <= 80_000
    assert images(data)[0].size < (512, 512)
    assert f"textures of {images(data)[0].size[0]} pixels" in note


def test_png_is_reduced_in_size_only_and_encoded_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    glb = WRITERS["glb"]

    def write(mesh: Mesh, options: WriteOptions) -> bytes:
        assert mesh.texture is not None
        sizes.append(mesh.texture.shape[0])
        return glb.write(mesh, options)

    monkeypatch.setitem(WRITERS, "glb", replace(glb, write=write))
    data, note = encode_within(large(), "glb", WriteOptions(AS_MODELLED, "mesh", "png"), 100_000)
    assert len(data) <= 100_000
    assert sizes == [512, 256, 128]
    assert note == "To stay within the size limit, the GLB has textures of 128 pixels."


def test_note_on_a_normal_map_alone_has_no_quality() -> None:
    mesh = large().replace(texture=None)
    full = len(encode(mesh, "glb", texture_format="jpeg"))
    note = encode_within(mesh, "glb", WriteOptions(AS_MODELLED, "mesh", "jpeg"), full - 1).note
    assert note == "To stay within the size limit, the GLB has textures of 128 pixels."


@pytest.mark.parametrize("mesh", [large(), colored(256, 256)], ids=["textured", "coloured"])
def test_geometry_that_is_too_large_is_one_sentence(mesh: Mesh) -> None:
    with pytest.raises(UserError, match="more than 5000; lower the number of faces"):
        encode_within(mesh, "glb", WriteOptions(AS_MODELLED, "mesh", "png"), 5000)


def test_unknown_texture_format_is_one_sentence() -> None:
    with pytest.raises(UserError, match="Invalid texture format 'gif'"):
        encode(textured(), "glb", texture_format="gif")


def test_blender_opens_the_fallback(tmp_path: Path) -> None:
    program = shutil.which("blender")
    if program is None:
        pytest.skip("Blender is not installed (apt install blender python3-numpy)")
    path = save(textured(), tmp_path / "a.glb", texture_format="webp+png")
    code = (
        "import bpy, numpy; numpy.bool = bool;"
        f"bpy.ops.import_scene.gltf(filepath={str(path)!r});"
        "print('FOUND', [tuple(i.size) for i in bpy.data.images if i.size[0]])"
    )
    done = subprocess.run(
        [program, "-b", "--factory-startup", "--python-exit-code", "1", "--python-expr", code],
        capture_output=True, text=True, timeout=patience(180),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "(128, 64)" in done.stdout.partition("FOUND")[2]
