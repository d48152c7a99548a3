"""Invalid input, corrupt files and interrupts: one sentence, a non-zero exit code, no incomplete files."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import trimesh
from safetensors.torch import save

from tests.helpers.pace import patience
from tests.helpers.paths import ROOT
from tests.helpers.quick import QUICK, load_once
from triplaneturbo.__main__ import main, run_reporting_errors
from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.pipeline import STAGES, Progress
from triplaneturbo.serving import engine
from triplaneturbo.serving.job_queue import Job

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run `generate` in a folder; it must print one sentence, exit with 2 and change nothing."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> str:
        before = _contents(tmp_path)
        try:
            code = main(["generate", *argv])
        except SystemExit as leaving:
            code = leaving.code
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.endswith(".\n")
        assert err.count("\n") == 1, err
        assert len(err) < 400
        assert _contents(tmp_path) == before
        return err

    return run


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {
        str(path): b"" for path in folder.rglob("*") if path.is_dir()
    }


BAD_ARGUMENTS = [
    ([""], "prompt is blank"),
    (["   \t\n"], "prompt is blank"),
    (["\0\x1b\x7f"], "prompt is blank"),
    (["x" * 100_000], "prompt has 100000 characters; shorten it to at most 1000"),
    (["\udcff\udcfe"], "not valid UTF-8"),
    ([], "Give either a prompt"),
    (["a cup", "--prompts", "file.txt"], "Give either a prompt"),
    (["a", "cup"], "Unrecognized arguments: cup"),
    (["a cup", "--seed", "-1"], "seed should be 0 to 4294967295, not -1"),
    (["a cup", "--seed", "4294967296"], "seed should be 0 to 4294967295"),
    (["a cup", "--seed", "9" * 5000], "use a whole number"),
    (["a cup", "--seed", "seven"], "seed: invalid value 'seven': use a whole number"),
    (["a cup", "--seed", "1.5"], "seed: invalid value '1.5': use a whole number"),
    (["a cup", "--seed", ""], "use a whole number"),
    (["a cup", "--seed"], "seed: expected one argument"),
    (["a cup", "--seed", "4294967295", "--count", "2"], "seeds would exceed 4294967295"),
    (["a cup", "--count", "0"], "Invalid --count; use at least 1"),
    (["a cup", "--count", "-3"], "Invalid --count; use at least 1"),
    (["a cup", "--count", "1000000000000"], "at least 1 and at most 10000 meshes"),
    (["a cup", "--steps", "0"], "steps should be 1 to 50"),
    (["a cup", "--resolution", "100000"], "resolution should be 16 to 512, not 100000"),
    (["a cup", "--resolution", "0"], "resolution should be 16 to 512, not 0"),
    (["a cup", "--texture-size", "1000000"], "texture size should be 512 to 4096"),
    (["a cup", "--faces", "3"], "faces should be 100 or more"),
    (["a cup", "--faces", "-1"], "faces should be 100 or more"),
    (["a cup", "--unwrap", "smart"], "unwrap should be fast, xatlas, uvunwrap or none"),
    (["a cup", "--format", "fbx"], "Unknown format 'fbx'"),
    (["a cup", "-o", "cup.fbx"], "use .glb"),
    (["a cup", "-o", ""], "output path is empty"),
    (["a cup", "-o", "/dev/null/cup.glb"], "'/dev/null' is a file"),
    (["a cup", "--model", "enormous"], "no model 'enormous'; use auto, small, full, a folder or a hub id"),
    (["a cup", "--model", ""], "model's name is blank"),
    (["a cup", "--model", "x" * 100_000], "no model"),
    (["a cup", "--model", "/no/such/folder"], "no model '/no/such/folder'"),
    (["a cup", "--model", "../../etc"], "no model"),
    (["a cup", "--model", "."], "'.' is not a model folder: it has no triplaneturbo.json"),
    (["a cup", "--device", "tpu", "--model", "small"], "no device 'tpu'"),
    (
        ["a cup", "--precision", "int4", "--model", "small"],
        "precision should be auto, float32, float16 or bfloat16",
    ),
    (["--prompts", "missing.txt", "-o", "out"], "Cannot read 'missing.txt'"),
    (["--prompts", ".", "-o", "out"], "Cannot read '.'"),
    (["--prompts", "/dev/null", "-o", "out"], "contains no prompt"),
    (["--prompts", "/dev/null"], "contains no prompt"),
    (["a cup", "--colour"], "Unrecognized arguments: --colour"),
]


@pytest.mark.parametrize(
    ("argv", "sentence"), BAD_ARGUMENTS, ids=[ascii(" ".join(argv))[:50] for argv, _ in BAD_ARGUMENTS]
)
def test_bad_arguments(refused: Refused, argv: list[str], sentence: str) -> None:
    assert sentence in refused(*argv)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"x" * 100_000 + b"\n",
            "'prompts.txt' contains no prompt (left out: 1 longer than 1000 characters)",
        ),
        (b"a cup\n\0\0\n", "'prompts.txt' contains NUL bytes"),
        (b"a cup\n\xff\xfe\n", "'prompts.txt' is not UTF-8 text"),
        (b" \n\t\n", "'prompts.txt' contains no prompt (left out: 2 blank); write one per line"),
        (b"", "'prompts.txt' contains no prompt; write one per line"),
        (b"x" * (16 * 2**20 + 1), "'prompts.txt' is larger than 16 MB: use fewer prompts."),
        (b"a cup\n", "--prompts requires an output folder"),
    ],
)
def test_bad_prompt_files(refused: Refused, tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    folder = [] if "requires an output folder" in sentence else ["-o", "out"]
    assert sentence in refused("--prompts", "prompts.txt", *folder)


def test_batch_output_folder_is_a_file(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cup\n")
    (tmp_path / "out").write_text("not a folder")
    assert "is a file" in refused("--prompts", "prompts.txt", "-o", "out")


NASTY = ["🍄", "\u202eفطر أحمر", "../../x", "a/b\\c", "\"'`$(rm -rf x)`;|&", "a\0b\x1b[31m\r\nc", "--", "-o"]


@pytest.mark.parametrize("prompt", NASTY, ids=[ascii(prompt) for prompt in NASTY])
def test_any_prompt_gives_one_file_in_the_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    monkeypatch.setattr(engine, "_load", load_once)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["generate", *QUICK, "--quiet", "-o", "out/", "--", prompt]) == 0
    (path,) = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert re.fullmatch(r"here/out/[a-z0-9-]+\.glb", path.as_posix())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the built-in model that tests may corrupt."""
    return Path(shutil.copytree(SMALL, tmp_path / "model"))


def test_model_folder_without_weights(refused: Refused, copy: Path) -> None:
    config = GeneratorConfig.load(copy)
    GeneratorConfig(**{**config.__dict__, "untrained_seed": None}).save(copy)
    for path in [*copy.rglob("*.safetensors"), *copy.rglob("*.bin")]:
        path.unlink()
    assert re.search(r"broken|not found|missing", refused("a cup", "--model", "model", "--quiet"))


@pytest.mark.parametrize("part", ["unet", "vae", "scheduler", "text_encoder", "tokenizer"])
def test_model_folder_without_a_part(refused: Refused, copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)
    assert part in refused("a cup", "--model", "model", "--quiet")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"conv_rank": "many"}', '{"conv_rank": -1}', "\xff"])
def test_broken_model_config(refused: Refused, copy: Path, text: str) -> None:
    (copy / "triplaneturbo.json").write_bytes(text.encode("latin-1"))
    assert "triplaneturbo.json" in refused("a cup", "--model", "model", "--quiet")


@pytest.mark.parametrize("kind", ["empty", "truncated", "foreign", "lora", "not safetensors", "a folder"])
def test_incompatible_adapter(refused: Refused, copy: Path, kind: str) -> None:
    path = copy / "adapter.safetensors"
    path.unlink(missing_ok=True)
    whole = save({"some.other.model": torch.ones(2000)})
    lora = save({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.ones(16, 320)})
    if kind == "a folder":
        path.mkdir()
    else:
        files = {"empty": b"", "truncated": whole[:500], "foreign": whole, "lora": lora}
        path.write_bytes(files.get(kind, b"GIF89a" * 99))
    said = refused("a cup", "--model", "model", "--quiet")
    assert ("is a LoRA for images" in said) == (kind == "lora")
    assert "model" in said


def test_unreachable_hub(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    assert "the hub is unreachable" in refused("a cup", "--model", "someone/a-model")


def test_full_model_without_its_files(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_: object) -> Path:
        raise UserError("The released adapter is unavailable: nobody is there.")

    monkeypatch.setattr("triplaneturbo.models.catalog.find_full", lambda _: None)
    monkeypatch.setattr("triplaneturbo.models.catalog.fetch", unreachable)
    said = refused("a cup", "--model", "full")
    assert "The released adapter is unavailable: nobody is there; run `python -m triplaneturbo dow" in said


@pytest.mark.parametrize("formats", ["glb", "glb,obj,ply,stl"])
def test_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], formats: str
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(engine, "_load", load_once)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cup.glb").write_bytes(b"an older mesh")
    monkeypatch.setattr(os, "fsync", full)
    assert main(["generate", "a cup", "-o", "cup.glb", "--format", formats, "--quiet", "--json", *QUICK]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        err.splitlines()[-1]
        == "Cannot write cup.glb: No space left on device; free some space or choose another folder."
    )
    assert _contents(tmp_path) == {str(tmp_path / "cup.glb"): b"an older mesh"}


@pytest.mark.parametrize("moment", [*STAGES, "writing"])
def test_interrupt_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    """Ctrl-C at the start of each stage, and while the second of two files is written."""
    monkeypatch.setattr(engine, "_load", load_once)
    monkeypatch.chdir(tmp_path)
    add, synchronise = Job.add_event, os.fsync
    prompt, written = f"a cup, {moment}", 0
    moments = [moment]  # one interrupt alone: a stage can have several events, the last after `main` is done

    def add_and_interrupt(self: Job, event: Progress) -> None:
        add(self, event)
        # On a busy machine, the job that an earlier test has interrupted may still be running.
        if event.stage in moments and self.request.prompt == prompt:
            moments.clear()
            os.kill(os.getpid(), signal.SIGINT)

    def write_and_interrupt(descriptor: int) -> None:
        nonlocal written
        written += 1
        synchronise(descriptor)
        if moment == "writing" and written == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Job, "add_event", add_and_interrupt)
    monkeypatch.setattr(os, "fsync", write_and_interrupt)
    code = main(["generate", prompt, "-o", "cup.glb", "--format", "glb,stl", "--json", "--quiet", *QUICK])
    out, err = capsys.readouterr()
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "Interrupted; no incomplete file was left."
    left = [path.name for path in tmp_path.iterdir()]
    assert left == (["cup.glb"] if moment == "writing" else [])
    if left:
        scene = trimesh.load(tmp_path / "cup.glb")
        assert len(scene.geometry) == 1


def test_swallowed_interrupt_is_raised_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Python drops exceptions raised in destructors, of which importing torch calls many."""
    swallowed = []

    def work() -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(patience(5))
        except KeyboardInterrupt:
            swallowed.append(True)
        time.sleep(patience(5))
        return 0

    before = signal.getsignal(signal.SIGINT)
    assert run_reporting_errors(work, "Farewell.") == 130
    assert swallowed
    assert capsys.readouterr().err == "Farewell.\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_during_torch_import_raises_nothing(tmp_path: Path) -> None:
    """An exception in a callback from C++ aborts the process."""
    (tmp_path / "torch.py").write_text(
        "import os, signal\ntry:\n  os.kill(os.getpid(), signal.SIGINT)\nfinally:\n  os.abort()\n"
    )
    work = (
        "from triplaneturbo.__main__ import run_reporting_errors;"
        " run_reporting_errors(lambda: __import__('torch'), 'Farewell.')"
    )
    done = subprocess.run(
        [sys.executable, "-c", work],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "Farewell.\n")


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("stage", ["loading", "denoise"])
def test_interrupt_ends_the_process(tmp_path: Path, stage: str) -> None:
    """Ctrl-C at a terminal, while torch is being imported and between two of fifty steps."""
    import pty

    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "triplaneturbo", "generate", "a cup", "-o", "out/cup.glb"]
        + ["--device", "cpu", "--model", "small", "--steps", "50"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    shown = ""
    if stage == "loading":
        maps = Path(f"/proc/{process.pid}/maps")
        while maps.exists() and "libtorch" not in maps.read_text():
            time.sleep(0.01)
        time.sleep(0 if maps.exists() else 1)
    else:
        while not re.search(r"denoise [2-9]/", shown):
            shown += os.read(screen, 4096).decode()
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # raised when the other end is closed
        while news := os.read(screen, 4096):
            shown += news.decode()
    os.close(screen)
    assert process.wait(patience(60)) == 130, shown
    assert process.stdout is not None
    assert process.stdout.read() == b""
    assert re.split(r"[\r\n]+", shown.strip())[-1] == "Interrupted; no incomplete file was left."
    assert "Traceback" not in shown
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
