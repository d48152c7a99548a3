"""The command line samples an adapter with the number of denoising steps that is stored with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.adapter_files import installed_adapter
from tests.helpers.quick import load_once
from triplaneturbo.__main__ import main
from triplaneturbo.serving import engine

ARGUMENTS = ["--model", "small", "--device", "cpu", "--resolution", "24", "--texture-size", "512", "--json"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_load", load_once)
    monkeypatch.chdir(tmp_path)


def test_generate_uses_the_steps_of_the_adapter_unless_given(capsys: pytest.CaptureFixture[str]) -> None:
    steps = []
    with installed_adapter("one-step", "1"):
        for given in ([], ["--steps", "2"]):
            assert main(["generate", "a cup", "--adapter", "one-step", *given, *ARGUMENTS]) == 0
            steps.append(json.loads(capsys.readouterr().out)["settings"]["steps"])
    assert steps == [1, 2]


def test_an_invalid_number_of_steps_is_one_sentence_unless_given(capsys: pytest.CaptureFixture[str]) -> None:
    with installed_adapter("hostile", "1000000000"):
        arguments = ["generate", "a cup", "--adapter", "hostile", *ARGUMENTS]
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert "Invalid number of denoising steps '1000000000'" in err
        assert main([*arguments, "--steps", "1"]) == 0
