"""Meshes of an evaluation that the pipeline generates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.adapter_files import installed_adapter
from triplaneturbo.evaluate import generated_meshes
from triplaneturbo.evaluate.generated_meshes import GeneratedMeshes, GenerationSettings
from triplaneturbo.evaluate.methods import Item
from triplaneturbo.pipeline import Pipeline
from triplaneturbo.request import Request


def test_steps_are_those_of_the_adapter_unless_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def generate(pipeline: Pipeline, request: Request) -> tuple[bytes, dict[str, float]]:
        asked.append(pipeline.settle(request).steps)
        return b"", {"mesh": 1.0, "glb": 1.0}

    monkeypatch.setattr(generated_meshes, "_generate", generate)
    monkeypatch.setattr(generated_meshes, "warmup", lambda: None)
    items = [Item("a cup", 0, 0)]
    with installed_adapter("one-step", "1"):
        for number, (adapter, steps) in enumerate([("one-step", None), ("one-step", 3), ("", None)]):
            settings = GenerationSettings("small", adapter=adapter, steps=steps)
            list(GeneratedMeshes(settings, items, tmp_path / str(number), "cpu").make(items))
    assert asked == [1, 3, 2]
