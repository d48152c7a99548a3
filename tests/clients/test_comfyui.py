"""The ComfyUI node with a server in this process; ComfyUI itself is replaced by its module `folder_paths`."""

from __future__ import annotations

import errno
import io
import json
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio")

from tests.helpers.answering import answering
from tests.helpers.module_file import load_file
from tests.helpers.paths import ROOT
from triplaneturbo.mesh.io.metadata_reader import read_metadata

NODE = ROOT / "clients" / "comfyui" / "triplaneturbo_comfyui.py"
pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The node's module, loaded from its file as ComfyUI does."""
    comfy = ModuleType("folder_paths")
    comfy.get_output_directory = lambda: str(tmp_path / "output")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "folder_paths", comfy)
    return load_file(NODE)


def run(module: Any, **inputs: Any) -> tuple[Any, ...]:
    """Call the node as ComfyUI does: by the name of its function, with all inputs by name."""
    (cls,) = module.NODE_CLASS_MAPPINGS.values()
    required = cls.INPUT_TYPES()["required"]
    defaults = {name: kind[1]["default"] for name, kind in required.items()}
    assert inputs.keys() <= defaults.keys()
    outputs = getattr(cls(), cls.FUNCTION)(**defaults | inputs)
    assert len(outputs) == len(cls.RETURN_TYPES) == len(cls.RETURN_NAMES)
    return outputs


def test_the_node_writes_the_mesh_and_returns_its_texture(module: Any, url: str, tmp_path: Path) -> None:
    look = "a blue mushroom"
    path, model_file, texture = run(module, prompt="a red mushroom", look=look, seed=3, server=f"{url}/")
    output = tmp_path / "output"
    assert Path(path) == output / model_file
    assert Path(path).name.startswith("a-red-mushroom-3-")
    request = read_metadata(path).request
    assert (request.prompt, request.look, request.seed, request.faces) == ("a red mushroom", look, 3, 40_000)
    assert (texture.dtype, tuple(texture.shape)) == (torch.float32, (1, 512, 512, 3))
    assert 0 <= texture.min() < texture.max() <= 1

    again, *_ = run(module, prompt="a red mushroom", look=look, seed=3, server=url)
    assert again == path  # the same mesh, the same file
    low, *_ = run(module, prompt="a red mushroom", seed=3, detail="low", server=url)
    assert low != path
    assert read_metadata(low).request.faces == 10_000
    assert sorted(output.rglob("*.glb")) == sorted([Path(low), Path(path)])


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"prompt": " "}, "The prompt is blank"),
        ({"server": "ftp://example.com"}, "is no address; use one such as"),
        ({"server": "http://127.0.0.1:9"}, "Cannot reach http://127.0.0.1:9"),
        ({"prompt": "a" * 1001}, "The prompt has 1001 characters"),
        ({"prompt": "a cup", "look": "a" * 1001}, "has 1001 characters"),
    ],
)
def test_errors_are_one_sentence(
    module: Any, url: str, tmp_path: Path, inputs: dict[str, str], sentence: str
) -> None:
    with pytest.raises(module.ServerError, match=sentence) as refused:
        run(module, **{"server": url} | inputs)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "output").exists()


def glb_of(content: object, data: bytes = b"") -> bytes:
    """A GLB of a JSON chunk and a binary chunk, whatever their content."""
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    chunks = (
        struct.pack("<2I", len(text), 0x4E4F534A) + text + struct.pack("<2I", len(data), 0x004E4942) + data
    )
    return struct.pack("<4s2I", b"glTF", 2, 12 + len(chunks)) + chunks


def textured_glb(picture: bytes, **view: Any) -> bytes:
    content = {
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 0}],
        "bufferViews": [{"byteOffset": 4, "byteLength": len(picture)} | view],
    }
    return glb_of(content, b"skip" + picture)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_texture_has_the_pixels_of_the_file(module: Any) -> None:
    texture = module.base_color(textured_glb(png()))
    assert torch.equal((texture[0] * 255).round(), torch.arange(24.0).reshape(2, 4, 3))


@pytest.mark.parametrize(
    "glb",
    [
        b"glTF", glb_of([]), glb_of({}), glb_of({"materials": []}), glb_of({"materials": [3]}),
        textured_glb(b"no picture"), textured_glb(png(), byteLength=9), textured_glb(png(), byteOffset="x"),
        textured_glb(png())[:-30],
    ],
)  # fmt: skip
def test_a_broken_file_is_one_sentence_and_not_kept(module: Any, glb: bytes, tmp_path: Path) -> None:
    with answering({"path": "a.glb"}, glb) as server, pytest.raises(module.ServerError, match="GLB"):
        run(module, prompt="a cup", server=server)
    assert not (tmp_path / "output").exists()


def test_a_file_elsewhere_is_not_read(module: Any, tmp_path: Path) -> None:
    own, secret = textured_glb(png()), tmp_path / "secret.glb"
    secret.write_bytes(own + b"secret")
    with answering({"path": "a.glb"}, own + b"elsewhere") as elsewhere:
        for address in (secret.as_uri(), f"{elsewhere}/gradio_api/file=a.glb"):
            for file in ({"path": "a.glb", "url": address}, {"path": address, "url": address}):
                with answering(file, own) as server:
                    path, *_ = run(module, prompt="a cup", server=server)
                assert Path(path).read_bytes() == own


@pytest.mark.parametrize("file", [{}, {"path": None}, {"path": 3, "url": "file:///etc/passwd"}, [], None])
def test_an_answer_without_a_file_is_one_sentence(module: Any, file: Any) -> None:
    sentence = "does not answer as triplaneturbo does"
    with answering(file, b"glTF") as server, pytest.raises(module.ServerError, match=sentence):
        run(module, prompt="a cup", server=server)


def test_a_file_that_cannot_be_written_is_one_sentence_and_leaves_the_old_one(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with answering({"path": "a.glb"}, textured_glb(png())) as server:
        path, *_ = run(module, prompt="a cup", server=server)
        Path(path).write_bytes(b"old")
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "replace", fail)
            with pytest.raises(module.ServerError, match=r"^Cannot write .*: No space left on device; check"):
                run(module, prompt="a cup", server=server)
        assert Path(path).read_bytes() == b"old"
        (tmp_path / "output").rename(tmp_path / "moved")
        (tmp_path / "output").write_bytes(b"")  # a file in place of the folder
        with pytest.raises(module.ServerError, match=r"^Cannot write "):
            run(module, prompt="a cup", server=server)
