"""The command evaluate: on the built-in model, beside another method's meshes, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.evaluations import tiny_clip
from tests.helpers.shapes import colored
from triplaneturbo.__main__ import main
from triplaneturbo.cli import evaluate
from triplaneturbo.evaluate import protocols
from triplaneturbo.models import adapters
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.utils.atomic_files import write_atomically

PROMPTS = "a red mushroom\na blue chair\na green fish\na yellow duck\n"
Refused = Callable[..., str]


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of prompts in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text(PROMPTS)
    return tmp_path / "prompts.txt"


@pytest.fixture
def refused(prompts: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command with bad input; it must print one sentence, exit with 2 and write nothing."""

    def run(*argv: str, protocol: str = "prd", to: str = "to") -> str:
        before = {path: path.read_bytes() for path in prompts.parent.rglob("*") if path.is_file()}
        code = main(["evaluate", "--protocol", protocol, "--to", to, "--device", "cpu", "--quiet", *argv])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.endswith(".\n")
        assert err.count("\n") == 1, err
        assert {path: path.read_bytes() for path in prompts.parent.rglob("*") if path.is_file()} == before
        return err

    return run


def test_table_of_built_in_model_and_foreign_meshes(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prompts.parent
    common = ["evaluate", "--protocol", "prd", "--to", "to", "--prompts", "prompts.txt", "--clip", "toyworld"]
    common += ["--device", "cpu", "--quiet"]
    assert main([*common, "--model", "small", "--steps", "1", "--limit", "2"]) == 0
    table = capsys.readouterr().out
    assert table == (folder / "to" / "table.md").read_text(encoding="utf-8")
    (result,) = json.loads((folder / "to" / "scores.json").read_text(encoding="utf-8"))["results"]
    assert [score["prompt"] for score in result["scores"]] == ["a red mushroom", "a blue chair"]
    # The gallery is the whole list, and the first mesh, with its warm-up, is not timed.
    assert "all 4 prompts" in table
    assert result["latency"]["counted"] == 1
    assert result["latency"]["glb"]["mean"] > result["latency"]["mesh"]["mean"] > 0
    # Two different objects on plain views: the judge tells them from the other prompts.
    assert result["figures"]["r_at_1_object"]["mean"] == 1

    made = {score["prompt"]: 0 for score in result["scores"]}
    for path in sorted((folder / "to" / "meshes").glob("*.json")):
        record = json.loads(path.read_text())
        made[record["prompt"]] += 1
        glb = path.with_suffix(".glb").read_bytes()
        write_atomically(folder / "theirs" / f"{record['prompt'].replace(' ', '_')}.glb", glb)
    assert set(made.values()) == {1}
    colored().save(folder / "theirs" / "a_dog.ply")
    assert main([*common, "--meshes", "theirs"]) == 0
    beside = json.loads((folder / "to" / "scores.json").read_text(encoding="utf-8"))["results"]
    ours, theirs = sorted(beside, key=lambda result: result["method"])
    assert theirs["method"] == "theirs"
    assert theirs["figures"] == ours["figures"]  # they are the same meshes
    assert theirs["latency"] == {}
    assert theirs["missing"] == ["a green fish", "a yellow duck"]
    assert "no mesh, not scored: 2 (a green fish; a yellow duck)" in capsys.readouterr().out


def test_prompt_files(refused: Refused, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    err = refused("--prompts", "none.txt")
    assert "none.txt" in err
    prompts.write_text("\n \n# nothing\n")
    assert "contains no prompt" in refused("--prompts", "prompts.txt")
    prompts.write_text("".join(f"thing number {number}\n" for number in range(100_000)))
    err = refused("--prompts", "prompts.txt")
    assert "100,000 objects (prompts times seeds) are more than 10,000; use --limit" in err
    monkeypatch.setattr(evaluate, "DREAMFUSION", prompts.parent / "library.json")
    assert "library.json" in refused()


def test_duplicates_and_blanks_are_counted(
    prompts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text("a cup\n\nA cup\n" + PROMPTS)
    (prompts.parent / "meshes").mkdir()
    colored().save(prompts.parent / "meshes" / "a cup.ply")
    argv = ["evaluate", "--protocol", "prd", "--to", "to", "--prompts", "prompts.txt", "--device", "cpu"]
    assert main([*argv, "--clip", "toyworld", "--meshes", "meshes"]) == 0
    out, err = capsys.readouterr()
    assert "5 prompts; left out: 1 blank, 1 duplicate" in err
    assert "There is no mesh of 4 prompts; not scored." in err
    assert "views: 1 of 1\nembeddings of toyworld: 1 of 1\n" in err
    assert "all 5 prompts" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", "x"], "Invalid --seeds 'x'"),
        (["--seeds", "-1"], "Invalid --seeds '-1'"),
        (["--limit", "0"], "Invalid --limit 0"),
        (["--sheet", "-1"], "Invalid --sheet -1"),
        (["--steps", "0"], "steps"),
        (["--clip", "nowhere"], "There is no CLIP 'nowhere'"),
        (["--clip", "toyworld", "--meshes", "nowhere"], "There is no folder nowhere"),
        (["--clip", "toyworld", "--meshes", "wrong"], "named after a prompt"),
        (["--clip", "toyworld", "--meshes", "wrong", "--steps", "2"], "--steps applies to generated meshes"),
        (["--clip", "toyworld", "--adapter", "nobody"], "There is no adapter 'nobody'"),
    ],
)
def test_evaluate_options(refused: Refused, prompts: Path, argv: list[str], message: str) -> None:
    (prompts.parent / "wrong").mkdir()
    colored().save(prompts.parent / "wrong" / "a dog.ply")
    assert message in refused("--prompts", "prompts.txt", *argv)


def test_adapter_of_another_model_is_refused(
    prompts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(SMALL / "adapter.safetensors")
    name = next(iter(tensors))
    path = adapters.ADAPTERS / "other" / "adapter.safetensors"
    path.parent.mkdir(parents=True)
    save_file({key: value for key, value in tensors.items() if key != name}, path)
    argv = ["evaluate", "--protocol", "prd", "--to", "to", "--prompts", "prompts.txt", "--device", "cpu"]
    try:
        code = main([*argv, "--clip", "toyworld", "--model", "small", "--adapter", "other", "--quiet"])
    finally:
        path.unlink()
        path.parent.rmdir()
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert str(path) in err


def test_folder_of_another_evaluation_is_refused(
    refused: Refused, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prompts.parent
    (folder / "meshes").mkdir()
    colored().save(folder / "meshes" / "a red mushroom.ply")
    argv = ["--prompts", "prompts.txt", "--clip", str(tiny_clip(folder / "clip")), "--meshes", "meshes"]
    command = ["evaluate", "--protocol", "prd", "--to", "to", "--device", "cpu", "--quiet", *argv]
    assert main(command) == 0
    table = capsys.readouterr().out
    prompts.write_text(PROMPTS + "a cup\n")
    assert "to holds an evaluation with another list of prompts" in refused(*argv)
    prompts.write_text(PROMPTS)
    assert "to holds an evaluation with another protocol" in refused(*argv, protocol="ptd")
    assert main(command) == 0
    assert capsys.readouterr().out == table


def test_protocol_choices() -> None:
    assert tuple(protocols.PROTOCOLS) == evaluate.PROTOCOLS
