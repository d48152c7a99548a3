"""The registry of teachers: a new one is one file and one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
import torch

from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.domains.open_vocabulary import OPEN_VOCABULARY
from triplaneturbo.domains.registry import DOMAINS
from triplaneturbo.domains.toyworld import TOY_WORLD
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.run import Run
from triplaneturbo.finetune.runner import train
from triplaneturbo.models.catalog import find_model
from triplaneturbo.models.config import TOYWORLD
from triplaneturbo.teachers.registry import TEACHERS, TeacherSpec
from triplaneturbo.ui.training import finetune_form, running


@pytest.fixture
def grey(monkeypatch: pytest.MonkeyPatch) -> TeacherSpec:
    spec = TeacherSpec("grey", "Grey everything", "Grey", "tests.helpers.dummy_teacher:LOADER")
    monkeypatch.setitem(TEACHERS, spec.name, spec)
    for name, domain in DOMAINS.items():
        monkeypatch.setitem(DOMAINS, name, replace(domain, teachers=(*domain.teachers, spec.name)))
    return spec


def test_every_spec_has_its_loader() -> None:
    assert TOY_WORLD.teachers == ("rgb", "geometry", "sd")
    assert OPEN_VOCABULARY.teachers == ("mvdream", "richdreamer", "sd")
    for name, spec in TEACHERS.items():
        assert spec.name == name
        assert callable(spec.loader().load)
    assert {name for name, spec in TEACHERS.items() if spec.loader().probe} == {
        "mvdream",
        "richdreamer",
        "sd",
    }


def test_dummy_teacher_trains_the_built_in_model(grey: TeacherSpec, tmp_path: Path) -> None:
    config = FinetuneConfig(
        "mine", ("a small red apple",), teachers=("grey",), iterations=1, batch=1, optimizer="adamw",
        preview_every=0,
    )  # fmt: skip
    config.check(tmp_path / "library")
    run = Run.begin(tmp_path / "runs" / "mine", config)
    training = train(run, find_model("small", False), torch.device("cpu"))
    losses = next(report.losses for report in training if report.losses)
    training.close()
    assert losses["grey volume"] > 0
    assert not [name for name in losses if name.startswith(("rgb", "sd", "geometry"))]
    assert json.loads((run.folder / "order.json").read_text())["teachers"] == ["grey"]


def test_dummy_teacher_is_in_the_recipe_and_on_the_page(grey: TeacherSpec) -> None:
    assert full_recipe().teachers["grey"].kind == "sds"
    engine = SimpleNamespace(domain=DOMAINS[TOYWORLD])
    with gr.Blocks():
        _, controls = finetune_form._settings(engine)
    assert ("Grey everything", "grey") in controls["teachers"].choices
    assert "Grey" in running.titles(engine)
    log = [{"iteration": 1, "grey volume": 0.5}]
    assert set(running.table(log, "Grey")["part"]) == {"volume"}


def test_unregistered_teacher_is_refused() -> None:
    with pytest.raises(UserError, match="teacher"):
        FinetuneConfig("mine", ("a cup",), teachers=("grey",)).check_values()
