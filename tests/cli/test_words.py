"""Toy-world models report unknown words; other models do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.quick import load_once
from tests.helpers.tiny import tiny_model
from triplaneturbo.__main__ import main
from triplaneturbo.models.config import OPEN
from triplaneturbo.request import Request
from triplaneturbo.serving import engine as engine_module
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.jobs import MeshReady, follow
from triplaneturbo.serving.sessions import Session
from triplaneturbo.toyworld.captions.captions import Reading, parse, vocabulary
from triplaneturbo.toyworld.captions.vocabulary import VOCABULARY

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}
DRAGON = "a red dragon with glittering wings"
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def worldly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "worldly")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "other", OPEN)


@pytest.fixture(scope="module")
def engine(worldly: Path) -> Iterator[Engine]:
    with Engine(str(worldly), device="cpu") as engine:
        yield engine


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a quick command in an empty folder, models loaded once: exit code, standard output and error."""
    monkeypatch.setattr(engine_module, "_load", load_once)
    monkeypatch.chdir(tmp_path)

    def run(model: Path, *argv: str) -> tuple[int, str, str]:
        settings = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
        code = main(["generate", *argv, "--model", str(model), "--device", "cpu", "--quiet", *settings])
        return code, *capsys.readouterr()

    return run


def test_result_has_unknown_words(engine: Engine) -> None:
    first = engine.generate(f"  {DRAGON} ", **QUICK)
    assert first.reading == Reading(None, ("dragon", "glittering"))
    again = engine.generate(DRAGON, **QUICK)
    assert again.cached
    assert again.reading == first.reading
    assert engine.generate("red", **QUICK).reading == parse("red")
    assert parse("red").why
    understood = engine.generate("a red mushroom", **QUICK).reading
    assert understood is not None
    assert understood.spec == parse("mushroom").spec


def test_engine_reports_the_vocabulary(engine: Engine) -> None:
    assert engine.domain.vocabulary is VOCABULARY
    assert engine.pipeline.read(DRAGON) == Reading(None, ("dragon", "glittering"))
    (row,) = re.findall(r"^words +(.*)$", engine.report(), re.MULTILINE)
    assert row.startswith(f"{len(vocabulary()['things'])} things, {len(vocabulary()['colours'])} colours, ")


def test_page_facts_have_unknown_words(engine: Engine, tmp_path: Path) -> None:
    *_, made = follow(engine, Session(tmp_path), Request(DRAGON, **QUICK))
    assert isinstance(made, MeshReady)
    assert (made.facts["unknown_words"], made.facts["unclear"]) == (["dragon", "glittering"], "")


def test_open_vocabulary_models_have_no_word_list(other: Path) -> None:
    with Engine(str(other), device="cpu") as engine:
        assert engine.domain.vocabulary is None
        assert engine.pipeline.read(DRAGON) is None
        assert not re.search(r"^words", engine.report(), re.MULTILINE)
        assert engine.generate(DRAGON, **QUICK).reading is None


def test_generate_reports_unknown_words(cli: Cli, worldly: Path) -> None:
    code, out, err = cli(worldly, DRAGON, "-o", "a.glb", "--json")
    assert code == 0
    made = json.loads(out)
    assert made["unknown_words"] == ["dragon", "glittering"]
    assert made["unclear"] == ""
    (line,) = [line for line in err.splitlines() if "dragon" in line]
    assert line.startswith("This model does not know: 'dragon', 'glittering'. It knows ")
    assert line.endswith(" parts: python -m triplaneturbo words")

    _, out, err = cli(worldly, "red", "-o", "b.glb", "--json")
    made = json.loads(out)
    assert (made["unknown_words"], made["unclear"]) == ([], parse("red").why)
    assert f"This model may not follow the prompt. {parse('red').why}\n" in err

    _, out, err = cli(worldly, "a red mushroom", "-o", "c.glb", "--json")
    made = json.loads(out)
    assert (made["unknown_words"], made["unclear"]) == ([], "")
    assert "This model does not know" not in err
    assert "may not follow" not in err


def test_manifest_has_unknown_words_and_each_prompt_is_reported_once(
    cli: Cli, worldly: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a dragon\na red mushroom\nein Pilz\n", encoding="utf-8")
    code, _, err = cli(worldly, "--prompts", "prompts.txt", "-o", "out", "--count", "2")
    assert code == 0
    lines = [line for line in err.splitlines() if "does not know" in line]
    assert [line.split(". ")[0] for line in lines] == [
        "'a dragon': This model does not know: 'dragon'",
        "'ein Pilz': This model does not know: 'ein', 'Pilz'",
    ]
    entries = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    words = [(entry["prompt"], entry["seed"], entry["unknown_words"]) for entry in entries]
    assert words == [
        ("a dragon", 0, ["dragon"]),
        ("a dragon", 1, ["dragon"]),
        ("a red mushroom", 0, []),
        ("a red mushroom", 1, []),
        ("ein Pilz", 0, ["ein", "Pilz"]),
        ("ein Pilz", 1, ["ein", "Pilz"]),
    ]


def test_open_vocabulary_models_report_no_unknown_words(cli: Cli, other: Path) -> None:
    _, out, err = cli(other, DRAGON, "-o", "a.glb", "--json")
    assert not {"unknown_words", "unclear"} & set(json.loads(out))
    assert "dragon" not in err


def test_words_lists_the_vocabulary_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["words"]) == 0
    said = capsys.readouterr().out
    flat = re.sub(r"\s+", " ", said)
    for words in vocabulary().values():
        assert f"({len(words)}) {', '.join(words)} " in flat
    assert max(map(len, said.splitlines())) <= 100
    assert main(["words", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    examples = known.pop("examples")
    assert known == vocabulary()
    assert all(f"\n  {example}\n" in said for example in examples)
