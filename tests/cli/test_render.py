"""`render FILE`: a turntable and a still image."""

from __future__ import annotations

import builtins
import io
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.shapes import colored, textured
from triplaneturbo.__main__ import main
from triplaneturbo.errors import UserError
from triplaneturbo.mesh import video
from triplaneturbo.mesh.io import save
from triplaneturbo.mesh.preview import turntable


@pytest.fixture
def glb(tmp_path: Path) -> Path:
    return save(textured(), tmp_path / "ball.glb")


def test_default_is_a_turntable_and_a_still_on_transparent_ground(
    glb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", str(glb), "--size", "64", "--frames", "6", "--seconds", "1.2"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == ["ball.webp", "ball.png"]
    turn, still = (Image.open(path) for path in paths)
    assert turn.n_frames == 6
    assert turn.size == still.size == (64, 64)
    assert still.mode == "RGBA"
    alpha = np.asarray(still)[..., 3]
    assert alpha[0, 0] == 0
    assert alpha[32, 32] == 255
    turn.seek(0)
    first = np.asarray(turn.convert("RGBA"))
    turn.seek(3)
    second = np.asarray(turn.convert("RGBA"))
    assert first[0, 0, 3] == 0
    assert np.abs(first.astype(int) - second).max() > 30


@pytest.mark.parametrize("suffix", [".ply", ".zip", ".stl"])
def test_other_formats_and_a_background(suffix: str, tmp_path: Path) -> None:
    path, picture = save(colored(), tmp_path / f"a{suffix}"), tmp_path / "a.png"
    options = ["--size", "32", "--background", "#102030", "--quiet"]
    assert main(["render", str(path), "-o", str(picture), *options]) == 0
    pixels = np.asarray(Image.open(picture))
    assert pixels.shape == (32, 32, 3)
    assert tuple(pixels[0, 0]) == (0x10, 0x20, 0x30)


BAD = {
    "suffix": (["a.fbx"], "Cannot render"),
    "missing": (["missing.glb"], "Cannot read"),
    "output": (["ball.glb", "-o", "a.avi"], "Cannot write"),
    "size": (["ball.glb", "--size", "100000"], "Invalid size"),
    "frames": (["ball.glb", "--frames", "1"], "Invalid number of frames"),
    "endless": (["ball.glb", "--seconds", "nan"], "Invalid duration"),
    "background": (["ball.glb", "--background", "red"], "Invalid background"),
    "odd": (["ball.glb", "-o", "a.png", "a.mp4", "--size", "63"], "Invalid size 63 for .mp4"),
    "text": (["text.glb"], "Cannot read"),
    "no faces": (["empty.ply"], "has no faces"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(
    name: str, glb: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(glb.parent)
    Path("text.glb").write_text("hello")
    Path("empty.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        "end_header\n0 0 0\n"
    )
    arguments, sentence = BAD[name]
    assert main(["render", *arguments]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
    assert not Path("a.png").exists()


def test_mp4_without_an_encoder_is_one_sentence(
    glb: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _without_pyav(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["render", str(glb), "-o", str(glb.with_suffix(".mp4"))]) == 2
    assert capsys.readouterr().err.startswith("MP4 needs PyAV (pip install av) or the program ffmpeg")


@pytest.mark.parametrize("encoder", ["pyav", "ffmpeg"])
def test_mp4_has_the_frames(encoder: str, glb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av", reason="PyAV, which reads the video, is not installed (pip install av)")
    if encoder == "ffmpeg":
        if shutil.which("ffmpeg") is None:
            pytest.skip("ffmpeg is not installed (apt install ffmpeg)")
        monkeypatch.setattr(video, "_has_pyav", lambda: False)
    target = glb.with_suffix(".mp4")
    options = ["--size", "64", "--frames", "12", "--seconds", "1"]
    assert main(["render", str(glb), "-o", str(target), *options]) == 0
    with av.open(io.BytesIO(target.read_bytes())) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 12
    assert len(frames) == 12
    expected = turntable(textured(), 12, 64)
    for frame, wanted in zip(frames, expected, strict=True):
        assert np.abs(frame.astype(int) - wanted).mean() < 8


@pytest.mark.parametrize(("frames", "seconds"), [(7, 3), (10, 4), (2, 60), (360, 0.1), (48, 3.7)])
def test_mp4_has_the_duration(frames: int, seconds: float, glb: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed (pip install av)")
    target = glb.with_suffix(".mp4")
    options = ["--size", "16", "--frames", str(frames), "--seconds", str(seconds)]
    assert main(["render", str(glb), "-o", str(target), *options]) == 0
    with av.open(io.BytesIO(target.read_bytes())) as container:
        assert container.streams.video[0].frames == frames
        assert float(frames / container.streams.video[0].average_rate) == pytest.approx(seconds, rel=1e-3)


class Failure(Exception):
    """An error of the fake PyAV."""


def fake_av(codecs: set[str]) -> Any:
    """A PyAV that cannot encode."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise Failure("no\nspace")

    return SimpleNamespace(codecs_available=codecs, open=refuse, error=SimpleNamespace(FFmpegError=Failure))


@pytest.mark.parametrize(
    ("codecs", "sentence"), [(set(), "has no encoder for MP4"), ({"mpeg4"}, "could not encode the video")]
)
def test_errors_of_pyav_are_one_sentence(
    codecs: set[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", fake_av(codecs))
    with pytest.raises(UserError, match=f"^PyAV {sentence}.*write a .webp instead") as caught:
        video.encode_mp4([np.zeros((16, 16, 3), np.uint8)], 12)
    assert "\n" not in str(caught.value)


def _without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    importer = builtins.__import__

    def refuse(name: str, *more: Any, **how: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return importer(name, *more, **how)

    monkeypatch.delitem(sys.modules, "av", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
