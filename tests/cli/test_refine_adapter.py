"""refine --adapter with an adapter that was fine-tuned from the built-in model."""

from __future__ import annotations

from pathlib import Path

import pytest

from triplaneturbo.__main__ import main
from triplaneturbo.finetune import run as run_module
from triplaneturbo.finetune.run import Run
from triplaneturbo.models import adapters
from triplaneturbo.models.adapter_switch import AdapterSwitch
from triplaneturbo.pipeline import Pipeline
from triplaneturbo.refine.pictures import picture
from triplaneturbo.representations.triplane_asset import TriplaneAsset, TriplaneOptions
from triplaneturbo.request import Request

PROMPT = "a small red apple"


def test_the_draft_is_that_of_the_fine_tuned_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = tmp_path / "library"
    for function in (Run.keep, run_module.FinetuneConfig.check, adapters.adapter, adapters.adapters):
        monkeypatch.setattr(function, "__defaults__", (shelf,))
    monkeypatch.setattr(adapters, "ADAPTERS", shelf)
    (tmp_path / "mine.txt").write_text(f"{PROMPT}\n")
    assert main(
        ["finetune", "--prompts", str(tmp_path / "mine.txt"), "--runs", str(tmp_path / "runs"), "--model",
         "small", "--device", "cpu", "--steps", "2", "--batch", "1", "--rate", "1e-2", "--optimizer", "adamw",
         "--preview-every", "0", "--quiet"]
    ) == 0  # fmt: skip

    def refine(output: str, *options: str) -> int:
        return main(
            ["refine", PROMPT, "--model", "small", "--device", "cpu", "--steps", "1", "--quiet", "-o",
             str(tmp_path / output), "--texture-size", "512", "--pictures", str(tmp_path / "pictures"),
             *options]
        )  # fmt: skip

    assert refine("plain.glb") == 0
    plain = (tmp_path / "pictures" / "step-00000.png").read_bytes()
    assert refine("tuned.glb", "--adapter", "mine") == 0
    tuned = (tmp_path / "pictures" / "step-00000.png").read_bytes()
    assert tuned != plain
    assert (tmp_path / "tuned.glb").read_bytes() != (tmp_path / "plain.glb").read_bytes()

    pipeline = Pipeline.from_pretrained("small", device="cpu")
    AdapterSwitch(pipeline.model, pipeline.model.folder).use(shelf / "mine" / "adapter.safetensors")
    field = pipeline.field(Request(PROMPT, adapter="mine"))
    draft = TriplaneAsset(field.planes, field.fields, TriplaneOptions.for_size(128))
    assert picture(draft) == tuned
    capsys.readouterr()
