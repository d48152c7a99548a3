"""The command refine: files, interruption and resuming, and one sentence for each error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.shapes import colored
from tests.helpers.tiny import tiny_model
from triplaneturbo.__main__ import main
from triplaneturbo.cli import refine
from triplaneturbo.distill.ptd import Refiner
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io import save
from triplaneturbo.mesh.io.generation_metadata import Refinement
from triplaneturbo.mesh.io.metadata_reader import read_metadata
from triplaneturbo.mesh.io.splat_ply import decode_splats
from triplaneturbo.refine import setup


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


def call(model: str, *arguments: object, steps: int = 3) -> int:
    return main(
        ["refine", "a red mushroom", "--model", model, "--device", "cpu", "--steps", str(steps), "--quiet",
         "--texture-size", "512", *map(str, arguments)]
    )  # fmt: skip


def test_meshes_and_splats_are_written_and_nothing_else(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [tmp_path / name for name in ("a.glb", "b.ply", "c.splats.ply")]
    assert call(model, "--as", "gaussians", "-o", *outputs, steps=1) == 0
    assert capsys.readouterr().out.split() == [str(path) for path in outputs]
    assert sorted(tmp_path.iterdir()) == outputs
    assert outputs[0].read_bytes()[:4] == b"glTF"
    assert len(decode_splats(outputs[2].read_bytes())) == 128**2 // 2
    assert b"rot_0" not in outputs[1].read_bytes()
    for path in outputs[:2]:
        read = read_metadata(path)
        assert (read.request.prompt, read.request.texture_size, read.model) == ("a red mushroom", 512, "tiny")
        assert read.refinement == Refinement(1, refine_as="gaussians", refine_teachers=("rgb", "geometry"))

    assert call(model, "--no-metadata", "-o", tmp_path / "plain.glb", steps=1) == 0
    with pytest.raises(UserError, match="contains no settings"):
        read_metadata(tmp_path / "plain.glb")


def test_an_interrupted_refinement_is_written_and_resumes_to_the_same_bytes(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, path = tmp_path / "whole.glb", tmp_path / "mesh.glb"
    assert call(model, "-o", whole) == 0

    @contextmanager
    def after_one_step() -> Iterator[Callable[[], bool]]:
        yield lambda: True

    with monkeypatch.context() as patch:
        patch.setattr(refine, "deferred_interrupt", after_one_step)
        assert call(model, "-o", path) == 130
    assert "Stopped after step 1 of 3" in capsys.readouterr().err
    draft = path.read_bytes()
    assert draft[:4] == b"glTF"
    refinement = read_metadata(path).refinement
    assert refinement is not None
    assert (refinement.refine_steps, refinement.stopped_after) == (3, 1)
    assert call(model, "-o", path) == 2
    assert "has an unfinished refinement; add --resume" in capsys.readouterr().err
    assert call(model, "-o", path, "--resume", steps=4) == 2
    assert "started with steps 3, not 4" in capsys.readouterr().err
    assert call(model, "-o", path, "--resume") == 0
    assert path.read_bytes() == whole.read_bytes() != draft
    assert sorted(tmp_path.iterdir()) == [path, whole]


@pytest.mark.parametrize("mesh", [False, True])
def test_a_mesh_that_was_interrupted_during_the_path_is_not_called_refined(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mesh: bool
) -> None:
    @contextmanager
    def at_once() -> Iterator[Callable[[], bool]]:
        yield lambda: True

    settings = setup.TOYWORLD_SETTINGS
    monkeypatch.setattr(setup, "TOYWORLD_SETTINGS", replace(settings, path_iterations=2))
    monkeypatch.setattr(refine, "deferred_interrupt", at_once)
    given = save(colored(), tmp_path / "given.ply")
    start = ("--mesh", given, "--as", "gaussians") if mesh else ()
    assert call(model, "--teachers", "sd", *start, "-o", tmp_path / "mesh.ply") == 130
    if mesh:  # the model made nothing of it
        with pytest.raises(UserError, match="contains no settings"):
            read_metadata(tmp_path / "mesh.ply")
    else:
        read = read_metadata(tmp_path / "mesh.ply")
        assert (read.request.prompt, read.refinement) == ("a red mushroom", None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "a.splats.ply"], "'a.splats.ply' needs 3D Gaussians; add --as gaussians."),
        (["-o", "a.gltf"], "Unknown suffix of output 'a.gltf'"),
        (["-o", "out/"], "'out/' is a folder; use a file such as out/mesh.glb."),
        (["-o", "a.glb", "--as", "voxels"], "Unknown representation 'voxels'; choose from field, gauss"),
        (["-o", "a.glb", "--path", "x"], "Unknown path 'x'; choose from interpolate, checkpoints, none."),
        (["-o", "a.glb", "--score", "x"], "Unknown score 'x'; choose from asd, sds, csd, vsd, ism."),
        (["-o", "a.glb", "--teachers", "x"], "Unknown teacher 'x'; choose from rgb, geometry,"),
        (["-o", "a.glb", "--steps", "0"], "Invalid number of steps 0; use 1 to 100000."),
        (["-o", "a.glb", "--seed", "-1"], "Invalid seed -1"),
        (["-o", "a.glb", "--resume"], "There is nothing to resume in 'a.glb.refine'; omit --resume."),
    ],
)  # fmt: skip
def test_bad_options_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], sentence: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["refine", "a red mushroom", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(sentence)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("prompt", "arguments", "sentence"),
    [
        ("a red dragon", [], "The built-in model cannot express 'a red dragon': it does not know 'dragon'."),
        ("a red mushroom", ["--teachers", "mvdream"], "tiny has no teacher mvdream; choose from rgb,"),
        ("a red mushroom", ["--score", "csd"], "The teacher rgb cannot give csd scores; choose from sd,"),
    ],
)  # fmt: skip
def test_what_the_model_cannot_do_is_one_sentence(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    prompt: str, arguments: list[str], sentence: str,
) -> None:  # fmt: skip
    output = str(tmp_path / "a.glb")
    assert main(["refine", prompt, "--model", model, "--quiet", "-o", output, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(sentence)
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_short_memory_is_one_sentence(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(refiner: Refiner) -> None:
        raise MemoryError

    monkeypatch.setattr(Refiner, "step", fail)
    assert call(model, "--path", "none", "-o", tmp_path / "a.glb") == 2
    assert capsys.readouterr().err.startswith("Out of memory while refining; close other programs")
