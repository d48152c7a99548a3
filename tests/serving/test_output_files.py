"""Output files: safe names, checks of the targets before generation, manifests."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from triplaneturbo.cli.manifest import Manifest
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.registry import suffixes
from triplaneturbo.request import Request
from triplaneturbo.serving.output_files import FORMATS, plan, safe_name
from triplaneturbo.utils.atomic_files import write_atomically

NASTY = [
    "../../x",
    "/etc/passwd",
    "..",
    ".",
    "-rf",
    "con",
    "a/b\\c:d*e?f\"g<h>i|j'k`l$m",
    "🍄🍄🍄",
    "\u202eفطر أحمر",
    "蘑菇",
    "Éclair à la crème",
    "x" * 1000,
    "a\0b",
    "%s %n ${HOME} $(id)",
]


@pytest.mark.parametrize("prompt", NASTY, ids=[ascii(prompt)[:30] for prompt in NASTY])
def test_file_names_have_safe_characters(prompt: str) -> None:
    name = safe_name(Request(prompt, seed=7), "small")
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}-7-[0-9a-f]{8}", name)


def test_file_names_without_variation_path_are_unchanged() -> None:
    request = Request("a red mushroom", variation=0.2, variation_seed=3, floaters=0.01)
    assert safe_name(request.checked(), "small") == "a-red-mushroom-0-a05693e4"
    assert (
        safe_name(Request("a red mushroom", variation_path="3:0.2"), "small") != "a-red-mushroom-0-a05693e4"
    )


def test_different_requests_have_different_file_names() -> None:
    one = Request("🍄")
    others = [Request("🌲"), Request("🍄", seed=1), Request("🍄", steps=2), Request("🍄", faces=None)]
    names = {safe_name(request, "small") for request in [one, *others]} | {safe_name(one, "full")}
    assert len(names) == 6
    assert safe_name(one, "small") == safe_name(Request("🍄"), "small")


def test_formats_match_the_writers() -> None:
    assert suffixes() == FORMATS


def _names(output: str | None, formats: str | None = None, count: int = 1) -> list[str]:
    jobs = plan([Request("a cup", seed=seed) for seed in range(count)], "small", output, formats)
    return [path.as_posix() for job in jobs for path in job.paths.values()]


def test_output_file_is_used_as_given(tmp_path: Path) -> None:
    assert _names(f"{tmp_path}/cup.glb") == [f"{tmp_path}/cup.glb"]
    assert _names(f"{tmp_path}/new/cup.PLY", "ply") == [f"{tmp_path}/new/cup.ply"]
    assert _names(f"{tmp_path}/cup.v2", "glb") == [f"{tmp_path}/cup.v2.glb"]


def test_several_formats_share_a_stem(tmp_path: Path) -> None:
    assert _names(f"{tmp_path}/cup.glb", "glb,OBJ, stl") == [
        f"{tmp_path}/cup{end}" for end in (".glb", ".zip", ".stl")
    ]


def test_several_meshes_have_numbered_files(tmp_path: Path) -> None:
    assert _names(f"{tmp_path}/cup.glb", count=3) == [f"{tmp_path}/cup-{n}.glb" for n in (1, 2, 3)]
    assert _names(f"{tmp_path}/cup.glb", count=10)[0] == f"{tmp_path}/cup-01.glb"


@pytest.mark.parametrize("output", ["", "/", None])
def test_output_folder_uses_names_from_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    names = _names(None if output is None else f"{tmp_path}{output}", count=2)
    for seed, name in enumerate(names):
        assert re.fullmatch(rf"a-cup-{seed}-[0-9a-f]{{8}}\.glb", Path(name).name)
    assert {Path(name).parent for name in names} == {Path("outputs") if output is None else tmp_path}


@pytest.mark.parametrize(
    ("output", "formats", "sentence"),
    [
        ("cup", None, "use .glb, .zip, .ply, .stl, .3mf, .usdz, or end a folder's name with /"),
        ("cup.obj", None, "use the suffix .zip, as an OBJ comes as a zip with its material and its texture"),
        ("cup.OBJ", "obj", "use the suffix .zip, as an OBJ comes as a zip"),
        ("cup.obj", "glb", "use the suffix .zip, as an OBJ comes as a zip"),
        (".glb", None, "Invalid output '.glb': the file name is only a suffix"),
        ("cup.glb", "ply", "does not match --format ply"),
        ("cup.glb", "glb,fbx", "Unknown format 'fbx'; use glb, obj, ply, stl, 3mf, usdz"),
        ("cup.glb", "", "Unknown format ''"),
        ("  ", None, "path is empty"),
        ("a\0b.glb", None, "path is empty"),
        ("/dev/null/cup.glb", None, "'/dev/null' is a file"),
        ("/dev/full", "glb", None),
        ("x" * 300 + ".glb", None, "File name too long; use another name"),
    ],
)
def test_invalid_outputs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, formats: str | None, sentence: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if sentence is None:  # the suffix is added, so that a device is never written to
        assert _names(output, formats) == ["/dev/full.glb"]
        return
    with pytest.raises(UserError, match=re.escape(sentence)):
        _names(output, formats)
    assert list(tmp_path.iterdir()) == []


def test_folder_as_output_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cup.ply").mkdir()
    with pytest.raises(UserError, match="exists and is not a regular file"):
        _names(f"{tmp_path}/cup", "ply")


def _made(folder: Path, name: str, data: bytes = b"mesh") -> dict:
    import hashlib

    path = write_atomically(folder / name, data)
    return {"prompt": name, "files": [{"path": str(path), "sha256": hashlib.sha256(data).hexdigest()}]}


def test_manifest_finds_unchanged_files(tmp_path: Path) -> None:
    jobs = plan([Request("a cup"), Request("a hat"), Request("a tin")], "small", f"{tmp_path}/", None)
    names = [job.paths["glb"].name for job in jobs]
    manifest = Manifest(tmp_path)
    for name in names:
        manifest.add(_made(tmp_path, name))
    (tmp_path / names[1]).write_bytes(b"changed")
    (tmp_path / names[2]).unlink()
    assert [Manifest(tmp_path).has(job) for job in jobs] == [True, False, False]


def test_manifest_replaces_entries(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    for name, data in (("a.glb", b"1"), ("b.glb", b"2"), ("a.glb", b"3")):
        manifest.add(_made(tmp_path, name, data))
    entries = [json.loads(line) for line in manifest.path.read_text().splitlines()]
    assert [entry["files"][0]["path"] for entry in entries] == ["b.glb", "a.glb"]
    assert [json.loads(line) for line in Manifest(tmp_path).path.read_text().splitlines()] == entries


@pytest.mark.parametrize("text", ["{", "[]", "5", '{"files": [{}]}', '{"files": 5}', "\xff"])
def test_foreign_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="move the file away"):
        Manifest(tmp_path)
    assert (tmp_path / "manifest.jsonl").read_bytes() == text.encode("latin-1")
