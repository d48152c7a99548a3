"""Prompt, seed, settings and model in files: written, read back, and refused if they are invalid."""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pygltflib
import pytest

from tests.helpers.gltf_validator import assert_valid_glb
from tests.helpers.shapes import colored, textured
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io import encode, save
from triplaneturbo.mesh.io.generation_metadata import (
    KEY,
    LARGEST,
    GenerationMetadata,
    Refinement,
    from_dict,
    parse,
)
from triplaneturbo.mesh.io.metadata_reader import LARGEST_GLB_JSON, read_metadata
from triplaneturbo.mesh.io.registry import WRITERS
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.request import PROMPT_LIMIT, Request
from triplaneturbo.serving.refine_request import RefineRequest

FORMATS = [name for name in WRITERS if name != "stl"]
PROMPTS = {
    "plain": "a red mushroom",
    "html": '<img src=x onerror=alert(1)> & "quotes" \\',
    "any script": "ein \U0001f344 \u05e4\u05d8\u05e8\u05d9\u05d4 \u0000end_header",
    "longest": "\U0001f344" * PROMPT_LIMIT,
}


def metadata(prompt: str = "a red mushroom", **settings: Any) -> GenerationMetadata:
    request = Request(prompt, seed=7, steps=4, resolution=64, faces=None, **settings).checked()
    return GenerationMetadata(request, "small", Placement(0.25, "z", "ground", "mm"))


def glb_with(extras: object, length: int | None = None) -> bytes:
    """A GLB of a JSON chunk alone; `length` replaces the one that it declares."""
    text = json.dumps({"asset": {"version": "2.0", "extras": extras}}).encode()
    text += b" " * (-len(text) % 4)
    length = len(text) if length is None else length
    return struct.pack("<5I", 0x46546C67, 2, 20 + length, length, 0x4E4F534A) + text


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("format", FORMATS)
def test_files_give_back_what_was_written(format: str, prompt: str, tmp_path: Path) -> None:
    written = metadata(prompt, variation=0.25, variation_seed=3, blend="a blue chair", watertight=True)
    path = save(textured(normal_map=True), tmp_path / f"a{WRITERS[format].suffix}", metadata=written)
    assert read_metadata(path) == written


@pytest.mark.parametrize("format", FORMATS)
def test_files_tell_how_a_mesh_was_refined(format: str, tmp_path: Path) -> None:
    digests = ("a" * 64, "b" * 64, "c" * 64)
    refinement = Refinement(60, 12, 5, "gaussians", ("rgb", "sd"), "none", "ism", *digests)
    for one in (refinement, Refinement(60)):
        written = replace(metadata(), refinement=one)
        path = save(textured(), tmp_path / f"a{WRITERS[format].suffix}", metadata=written)
        assert read_metadata(path) == written
    assert written.as_dict()["settings"].keys() - metadata().as_dict()["settings"].keys() == {"refine_steps"}


def test_refinements_of_the_page_are_recognized() -> None:
    request = replace(RefineRequest.of(metadata().request, 20), stopped_after=1, upload="c" * 64)
    read = parse(GenerationMetadata(request, "small").as_text())
    assert read.request == metadata().request
    assert read.refinement == Refinement(20, 1, upload="c" * 64)
    assert (
        read.as_dict()
        == GenerationMetadata(
            metadata().request, "small", refinement=Refinement(20, 1, upload="c" * 64)
        ).as_dict()
    )


@pytest.mark.parametrize("start", [{}, {"refine_mesh": "a"}, {"refine_image": "b"}, {"upload": "c"}])
def test_the_note_says_whether_the_draft_can_be_refined_again(start: dict[str, str]) -> None:
    note = Refinement(20, 1, **start).note
    refined = "The mesh in the file was refined for 1 step"
    if start:
        assert note == f"{refined} from a given mesh or picture, so the new mesh is another one."
    else:
        assert note == f"{refined}, which is not repeated: refine the new mesh for that."


def test_a_long_name_of_a_model_is_read_back() -> None:
    for length, stored in ((255, 255), (300, 255)):
        written = GenerationMetadata(metadata().request, "m" * length)
        assert parse(written.as_text()).model == "m" * stored


@pytest.mark.parametrize(
    "refined",
    [
        {"refine_steps": 0}, {"refine_steps": True}, {"refine_steps": "60"}, {"refine_steps": 1e9},
        {"refine_steps": [1]}, {"refine_steps": 1, "stopped_after": -1}, {"refine_steps": 1, "refine_as": 3},
        {"refine_steps": 1, "refine_mesh": "x" * 256}, {"refine_steps": 1, "refine_teachers": "sd"},
        {"refine_steps": 1, "refine_teachers": ["a"] * 21}, {"refine_steps": 1, "refine_teachers": [{}]},
        {"refine_steps": 1, "upload": 3},
    ],
)  # fmt: skip
def test_invalid_refinement_is_one_sentence(refined: dict[str, Any]) -> None:
    content = metadata().as_dict()
    content["settings"] |= refined
    message = r"^A setting in this file is invalid: (refine|stopped|upload)"
    with pytest.raises(UserError, match=message) as refused:
        from_dict(content)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("format", WRITERS)
def test_files_without_metadata_do_not_change(format: str) -> None:
    mesh = textured(normal_map=True)
    assert encode(mesh, format) == encode(mesh, format, metadata=None)
    assert b"mushroom" not in encode(mesh, format)


def test_stl_ignores_metadata() -> None:
    assert encode(colored(), "stl", metadata=metadata()) == encode(colored(), "stl")


def test_glb_differs_in_its_extras_only() -> None:
    mesh = textured(normal_map=True)
    plain, told = encode(mesh, "glb"), encode(mesh, "glb", metadata=metadata())
    assert_valid_glb(told)
    documents = [pygltflib.GLTF2.load_from_bytes(data) for data in (plain, told)]
    assert documents[0].binary_blob() == documents[1].binary_blob()
    asset = json.loads(documents[1].to_json())["asset"]
    assert asset.pop("extras")[KEY]["prompt"] == "a red mushroom"
    assert {**json.loads(documents[1].to_json()), "asset": asset} == json.loads(documents[0].to_json())


def test_obj_and_ply_differ_in_one_comment(tmp_path: Path) -> None:
    mesh = textured()
    for format, mark in (("obj", b"# triplaneturbo {"), ("ply", b"comment triplaneturbo {")):
        files = []
        for given in (None, metadata()):
            path = save(mesh, tmp_path / f"a{WRITERS[format].suffix}", metadata=given)
            data = path.read_bytes()
            if format == "obj":
                with zipfile.ZipFile(path) as archive:
                    data = archive.read("a.obj")
            files.append(data.split(b"\n"))
        added = [line for line in files[1] if line.startswith(mark)]
        assert len(added) == 1
        assert [line for line in files[1] if line not in added] == files[0]


def test_usdz_differs_in_its_custom_layer_data_only(tmp_path: Path) -> None:
    from pxr import Sdf

    layers = []
    for name, given in (("plain", None), ("told", metadata())):
        path = save(textured(), tmp_path / f"{name}.usdz", metadata=given)
        layers.append(Sdf.Layer.FindOrOpen(str(path)))
    copy = Sdf.Layer.CreateAnonymous()
    copy.TransferContent(layers[1])
    assert copy.customLayerData[KEY]
    copy.ClearCustomLayerData()
    assert copy.ExportToString() == layers[0].ExportToString()


WRONG_VALUES: dict[str, dict[str, Any]] = {
    "prompt a list": {"prompt": ["a", "b"]},
    "no prompt": {"prompt": None},
    "blank prompt": {"prompt": "   "},
    "long prompt": {"prompt": "a" * (PROMPT_LIMIT + 1)},
    "half a character": {"prompt": "\ud83c"},
    "seed a text": {"seed": "../../etc/passwd"},
    "seed true": {"seed": True},
    "huge seed": {"seed": 10**30},
    "settings a list": {"settings": [1]},
    "steps": {"settings": {"steps": 10**6}},
    "resolution": {"settings": {"resolution": "64"}},
    "infinite variation": {"settings": {"variation": float("inf")}},
    "watertight a text": {"settings": {"watertight": "no"}},
    "unwrap a list": {"settings": {"unwrap": ["fast"]}},
    "adapter a number": {"settings": {"adapter": 1}},
    "endless path": {"settings": {"variation_path": "1:0.5," * 100 + "1:0.5"}},
    "placement a text": {"placement": "z"},
    "up": {"placement": {"up": ["y"]}},
    "size": {"placement": {"size": -1}},
    "model a table": {"model": {}},
    "long model": {"model": "m" * 1000},
    "no version": {"version": None},
    "later version": {"version": 2},
}


@pytest.mark.parametrize("changes", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_wrong_values_are_one_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        from_dict(metadata().as_dict() | changes)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_unknown_settings_are_ignored() -> None:
    content = metadata().as_dict()
    content["settings"]["sparkle"] = {"much": True}
    assert from_dict(content) == metadata()
    assert asdict(replace(from_dict(content).request)) == asdict(metadata().request)


BROKEN_FILES: dict[str, tuple[str, bytes]] = {
    "empty": (".glb", b""),
    "no glb": (".glb", b"<html>" * 100),
    "version 1": (".glb", struct.pack("<5I", 0x46546C67, 1, 20, 0, 0x4E4F534A)),
    "gigabyte of JSON": (".glb", glb_with({}, length=2**30)),
    "JSON without an end": (".glb", glb_with({})[:-9]),
    "deep JSON": (".glb", struct.pack("<5I", 0x46546C67, 2, 0, 200_000, 0x4E4F534A) + b"[" * 200_000),
    "huge number": (".glb", struct.pack("<5I", 0x46546C67, 2, 0, 9_000, 0x4E4F534A) + b"9" * 9_000),
    "of another program": (".glb", glb_with({"author": "me"})),
    "extras a text": (".glb", glb_with("triplaneturbo")),
    "long settings": (".glb", glb_with({KEY: {"version": 1, "prompt": "a" * LARGEST}})),
    "settings a number": (".glb", glb_with({KEY: 7})),
    "no zip": (".zip", b"PK\x03\x04" + b"\0" * 50),
    "plain obj": (".obj", b"# Blender\nv 0 0 0\n"),
    "broken comment": (".obj", b"# triplaneturbo {\n"),
    "no ply": (".ply", b"plywood"),
    "plain ply": (".ply", b"ply\nformat ascii 1.0\nend_header\ncomment triplaneturbo {}\n"),
    "no usdz": (".usdz", b"PK\x05\x06" + b"\0" * 18),
    "stl": (".stl", b"solid"),
    "no suffix": ("", b""),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_broken_and_foreign_files_are_one_sentence(name: str, tmp_path: Path) -> None:
    suffix, data = BROKEN_FILES[name]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_metadata(path)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder.glb").mkdir()
    for name in ("missing.glb", "folder.glb"):
        with pytest.raises(UserError, match="Cannot read"):
            read_metadata(tmp_path / name)


def test_zip_bomb_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.obj", b"#" * 100_000_000)
    with pytest.raises(UserError, match="no settings"):
        read_metadata(path)


def test_limits_admit_the_longest_metadata() -> None:
    longest = metadata("\U0001f344" * PROMPT_LIMIT, blend="\U0001f344" * PROMPT_LIMIT)
    assert len(longest.as_text()) < LARGEST < LARGEST_GLB_JSON
    assert parse(longest.as_text()) == longest


def test_texture_format_and_size_limit_are_stored_unless_they_are_the_defaults(tmp_path: Path) -> None:
    written = replace(metadata(), texture_format="webp+png", max_bytes=123_456)
    path = save(textured(), tmp_path / "a.glb", texture_format="webp+png", metadata=written)
    assert read_metadata(path) == written
    assert replace(written, max_bytes=None).as_dict()["files"] == {"texture_format": "webp+png"}
    assert "files" not in metadata().as_dict()


@pytest.mark.parametrize(
    "files", [[], {"texture_format": "gif"}, {"texture_format": []}, {"max_bytes": 0}, {"max_bytes": "1"}]
)
def test_invalid_options_of_files_are_one_sentence(files: object) -> None:
    with pytest.raises(
        UserError, match=r"^(A setting in this file is|The settings in this file are) invalid"
    ):
        from_dict(metadata().as_dict() | {"files": files})
