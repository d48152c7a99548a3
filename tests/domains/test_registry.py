"""The registry of domains: a new one is one `Domain` and one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.dummy_domain import DOMAIN, VOCABULARY, blocks_model
from tests.helpers.html_reader import Reader
from triplaneturbo.__main__ import main
from triplaneturbo.domains.domain import PRESETS, Domain
from triplaneturbo.domains.registry import DOMAINS, find_domain, measures
from triplaneturbo.errors import UserError
from triplaneturbo.finetune import run as run_module
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.publish import card
from triplaneturbo.finetune.run import Run
from triplaneturbo.models import adapters
from triplaneturbo.models.config import OPEN, TOYWORLD, GeneratorConfig
from triplaneturbo.serving.engine import Engine
from triplaneturbo.teachers.registry import TEACHERS, TeacherSpec
from triplaneturbo.ui.generate import controls
from triplaneturbo.ui.training import finetune_form, running
from triplaneturbo.ui.training.lengths import estimates

QUICK = ["--device", "cpu", "--quiet", "--resolution", "24", "--texture-size", "512", "--steps", "1"]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blocks_model(tmp_path_factory.mktemp("models") / "blocks")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DOMAINS, DOMAIN.name, DOMAIN)
    grey = TeacherSpec("grey", "Grey everything", "Grey", "tests.helpers.dummy_teacher:LOADER")
    monkeypatch.setitem(TEACHERS, grey.name, grey)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in an empty folder with its own folder of adapters: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    library = tmp_path / "library"
    monkeypatch.setattr(Run.keep, "__defaults__", (library,))
    monkeypatch.setattr(run_module.FinetuneConfig.check, "__defaults__", (library,))
    for function in (adapters.adapter, adapters.adapter_digest, adapters.adapters):
        monkeypatch.setattr(function, "__defaults__", (library,))

    def run(*argv: str) -> tuple[int, str, str]:
        return main(list(argv)), *capsys.readouterr()

    return run


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_every_domain_is_complete(domain: Domain) -> None:
    assert find_domain(domain.name) is domain
    assert set(domain.teachers) <= TEACHERS.keys()
    assert {measure.key for measure in domain.measures} <= measures().keys()
    if domain.vocabulary is not None:
        assert domain.vocabulary.words.keys() == domain.vocabulary.headings.keys()
        assert domain.vocabulary.misfits(domain.vocabulary.examples) == {}


def test_presets_must_be_complete() -> None:
    with pytest.raises(ValueError, match="presets"):
        replace(DOMAIN, presets={"try": {}})
    assert tuple(DOMAIN.presets) == PRESETS


@pytest.mark.parametrize(
    ("values", "domain"),
    [
        ({}, OPEN),
        ({"world": False}, OPEN),
        ({"world": True}, TOYWORLD),
        ({"domain": "blocks"}, "blocks"),
        ({"domain": "blocks", "world": False}, "blocks"),
    ],
)
def test_config_names_the_domain(tmp_path: Path, values: dict, domain: str) -> None:
    (tmp_path / "triplaneturbo.json").write_text(json.dumps(values))
    config = GeneratorConfig.load(tmp_path)
    assert config.domain == domain
    config.save(tmp_path)
    assert GeneratorConfig.load(tmp_path) == config
    assert json.loads((tmp_path / "triplaneturbo.json").read_text())["world"] is (domain == TOYWORLD)


def test_unknown_domain_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(DOMAINS, DOMAIN.name)
    with pytest.raises(UserError, match="unknown domain, 'blocks'"):
        Engine(str(model), device="cpu")


def test_commands_know_the_vocabulary(cli: Cli, model: Path) -> None:
    code, out, _ = cli("words", "--model", str(model), "--json")
    assert code == 0
    assert json.loads(out) == {**VOCABULARY.words, "examples": list(VOCABULARY.examples)}
    code, out, err = cli("generate", "a red dragon", "-o", "a.glb", "--model", str(model), "--json", *QUICK)
    assert code == 0, err
    assert json.loads(out)["unknown_words"] == ["dragon"]
    assert "This model does not know: 'dragon'. It knows 1 shapes and 2 paints" in err


def test_run_is_trained_and_judged(cli: Cli, model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a red block\na green block\na dragon\nred\n")
    arguments = ("finetune", "--model", str(model), "--device", "cpu", "--runs", "runs")
    code, out, err = cli(*arguments, "--prompts", "mine.txt")
    assert code == 0, err
    assert "'a dragon', it does not know 'dragon'; 'red', It names no block." in err
    assert "About 4 seconds." in err
    run = Run.open(tmp_path / "runs" / "mine")
    assert run.config.prompts == ("a red block", "a green block")
    assert (run.config.iterations, run.config.optimizer) == (2, "adamw")
    assert all(entry["grey volume"] > 0 for entry in run.log())
    assert out.startswith("learned: brightness 0.")
    scores = run.scores()
    assert scores is not None
    assert scores["after"]["learned"]["count"] == 4
    assert [entry["number"] for entry in scores["after"]["results"]] == [0, 0, 1, 1]
    # Each row of the sheet ends with the reference image.
    assert (np.asarray(Image.open(tmp_path / "library" / "mine" / "sheet.png")) == 128).mean() > 0.2
    own, learned = load_file(model / "adapter.safetensors"), load_file(run.folder / "learned.safetensors")
    assert own.keys() == learned.keys()
    assert any((own[name] != learned[name]).any() for name in own)

    assert "Brightness, training" in Reader(running.score_table(scores)).words
    assert "license: mit" in card(run.config, "blocks", DOMAIN.license, scores)
    code, _, err = cli(
        "generate", "a red block", "-o", "b.glb", "--model", str(model), "--adapter", "mine", *QUICK
    )
    assert code == 0, err
    assert (tmp_path / "b.glb").stat().st_size > 1000

    code, _, err = cli(*arguments, "--corpus", "mine.txt", "--name", "other")
    assert code == 2
    assert "The blocks model" in err
    assert "cannot be trained on a corpus" in err


def test_engine_uses_the_domain(model: Path, tmp_path: Path) -> None:
    with Engine(str(model), device="cpu", runs=tmp_path) as engine:
        assert engine.domain is DOMAIN
        assert engine.estimate_run(FinetuneConfig("x", ("a red block",), iterations=3)).seconds == 6
        with pytest.raises(UserError, match="cannot express these prompts: 'a dragon'"):
            engine.begin_run(FinetuneConfig("x", ("a dragon",)))
        assert "1 shapes and 2 paints, and no others" in engine.report()
        found = estimates(engine, ["a red block"], [], {**DOMAIN.presets["try"], "steps": 0})
        assert {label: e.seconds for label, e in found.items()} == {"Try": 4, "Short": 8, "Thorough": 4}


def test_page_shows_the_domain() -> None:
    engine = SimpleNamespace(domain=DOMAIN)
    with gr.Blocks():
        _, settings = finetune_form._settings(engine)
        examples = controls._examples(gr.Textbox(), engine)
    assert settings["iterations"].value == 2
    assert settings["teachers"].choices == [("Grey everything", "grey")]
    assert finetune_form.preset_values(engine, "short")[0] == 4
    assert examples is not None
    assert examples.samples == [["a red block"], ["a green block"]]
    assert "'dragon'" in Reader(controls.prompt_feedback(VOCABULARY, "a dragon")).words


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_suggested_looks_can_be_expressed(domain: Domain) -> None:
    prompt = domain.vocabulary.examples[0] if domain.vocabulary else "a knight's helmet"
    looks = domain.looks(prompt)
    assert looks
    assert prompt not in looks
    if domain.vocabulary is not None:
        assert domain.vocabulary.misfits(looks) == {}
