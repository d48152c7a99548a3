"""Small evaluations: a tiny CLIP, a generator of ellipsoids, and a process that is killed on purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from tests.helpers.killing import kill_at_write
from tests.helpers.shapes import colored
from triplaneturbo.errors import EmptySurfaceError
from triplaneturbo.evaluate import generated_meshes
from triplaneturbo.evaluate.evaluation import evaluate
from triplaneturbo.evaluate.folder import Evaluation
from triplaneturbo.evaluate.generated_meshes import GeneratedMeshes, GenerationSettings
from triplaneturbo.evaluate.judges import find_judge
from triplaneturbo.evaluate.methods import Item
from triplaneturbo.evaluate.protocols import PRD
from triplaneturbo.mesh.io import encode
from triplaneturbo.request import Request

GALLERY = ("a red ball", "a blue ball", "nothing", "a green egg", "a hat")
SCORED = GALLERY[:3]
PROTOCOL = replace(PRD, views=replace(PRD.views, size=32))
MODEL_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESS = {
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.4],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def tiny_clip(folder: Path, seed: int = 0, trained: bool = True) -> Path:
    """Write a tiny CLIP of open_clip to `folder` and return it; without weights unless `trained`."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": PREPROCESS}
    if not trained:
        config["untrained_seed"] = seed
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    if trained:
        torch.manual_seed(seed)
        model = open_clip.CLIP(**MODEL_CONFIG)
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(weights, folder / "open_clip_model.safetensors")
    return folder


class Counts(dict):
    """How often each thing was computed, by name."""

    def count(self, name: str) -> None:
        self[name] = self.get(name, 0) + 1


def fake_generator(patch: Any, counts: Counts | None = None) -> None:
    """Make `GeneratedMeshes` return ellipsoids at once, and no surface for the prompt "nothing".

    Args:
        patch: an object with `setattr(target, name, value)`, such as pytest's monkeypatch.
        counts: counts the meshes as "meshes".
    """
    model = SimpleNamespace(generator=SimpleNamespace(device=torch.device("cpu")))
    loaded = SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(model=model))

    def generate(_: object, request: Request) -> tuple[bytes, dict[str, float]]:
        if counts is not None:
            counts.count("meshes")
        if request.prompt == "nothing":
            raise EmptySurfaceError
        torch.manual_seed(request.seed + sum(request.prompt.encode()))
        return encode(colored(4, 6), "glb"), {"mesh": 1.0 + request.seed, "glb": 2.0 + request.seed}

    patch.setattr(generated_meshes, "Pipeline", loaded)
    patch.setattr(generated_meshes, "_generate", generate)
    patch.setattr(generated_meshes, "warmup", lambda: None)
    patch.setattr(generated_meshes, "gc", SimpleNamespace(collect=lambda: None))  # slow beside a test suite


def small_evaluation(
    folder: Path,
    clips: list[str],
    rank: int = 0,
    size: int = 1,
    seeds: tuple[int, ...] = (0,),
    sheet: int = 2,
    **settings: Any,
) -> str | None:
    """Evaluate ellipsoids for the SCORED prompts; return the table."""
    evaluation = Evaluation(folder, PROTOCOL, GALLERY)
    evaluation.claim()
    items = [Item(prompt, index, seed) for index, prompt in enumerate(SCORED) for seed in seeds]
    method = GeneratedMeshes(GenerationSettings("small", **settings), items, evaluation.meshes, "cpu")
    judges = [find_judge(name) for name in clips]
    device = torch.device("cpu")
    return evaluate(evaluation, method, judges, device, sheet, lambda *_: None, rank, size)


def die_at_write(folder: Path, clip: str, write: int) -> None:
    """Run `small_evaluation` in this process, which is killed before a file is complete, counted from 1."""
    torch.set_num_threads(1)
    fake_generator(SimpleNamespace(setattr=setattr))
    kill_at_write(write)
    small_evaluation(folder, [clip])
