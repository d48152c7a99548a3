"""Ablations on a subset of the toy world: steps K = 1, 2, 4; PETA, LoRA, full fine-tuning; ASD's shift, SDS.

    python -m triplaneturbo.toyworld trend --folder runs/small

Every run starts from the same small Stable Diffusion (`pretrain`) and has the same budget of U-Net passes:
half the steps K, twice the iterations. Interrupted runs are resumed. The output is a table, and `trend.json`
and `trend.png` in the folder's `trend/`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from triplaneturbo.distill import prd
from triplaneturbo.distill.prd import Student, Trainer
from triplaneturbo.distill.settings import Settings, Tuning
from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.preview import sheet
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.weights import Model
from triplaneturbo.teachers.settings import Kind
from triplaneturbo.toyworld.captions.combinations import held_out
from triplaneturbo.toyworld.scene.palette import NAMES
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scene.view_cache import ViewCache
from triplaneturbo.toyworld.scoring.generated import Generated, make_generate
from triplaneturbo.toyworld.scoring.score import score
from triplaneturbo.toyworld.scoring.score_report import align_columns, portrait
from triplaneturbo.toyworld.training.curves import as_png
from triplaneturbo.toyworld.training.train import CONFIG, SMALL, make_draw, make_student, make_teachers
from triplaneturbo.utils.atomic_files import write_atomically
from triplaneturbo.utils.distributed import DistributedContext

CLASSES = (
    "mushroom", "chair", "duck", "car", "rocket", "fish", "teapot", "tree", "table", "cat", "guitar", "house",
)  # fmt: skip
RATE = 1e-3
SEEDS = (0, 1)  # seeds of the scored results
_COLORS = 2  # seen colours per class that are scored, in addition to the held-out ones


@dataclass(frozen=True)
class Run:
    """Settings of one ablation run."""

    steps: int = 4
    tuning: Tuning = "peta"
    rate: float = RATE
    kind: Kind = "asd"
    shift: float = SMALL.teachers["rgb"].shift

    @property
    def folder(self) -> str:
        """Name of the run's folder."""
        score = "sds" if self.kind == "sds" else f"asd-{self.shift:g}"
        return f"{self.tuning}-{self.steps}-{self.rate:g}-{score}"

    def settings(self, passes: int, batch: int) -> Settings:
        """Return the trainer's settings; only the closed-form teachers take `kind` and `shift`.

        Args:
            passes: budget of U-Net passes.
            batch: prompts per iteration and process.
        """
        teachers = {
            name: how if name == "sd" else replace(how, kind=self.kind, shift=self.shift)
            for name, how in SMALL.teachers.items()
        }
        return replace(
            SMALL,
            iterations=passes // self.steps,
            batch=batch,
            steps=self.steps,
            scored_steps=None,
            tuning=self.tuning,
            learning_rate=self.rate,
            optimizer="adamw",
            teachers=teachers,
        )


RUNS = {
    "K = 1, PETA": Run(steps=1),
    "K = 2, PETA": Run(steps=2),
    "K = 4, PETA": Run(),
    "K = 4, basic LoRA": Run(tuning="lora"),
    "K = 4, full tuning": Run(tuning="full"),
    "K = 4, full tuning, a fifth of the rate": Run(tuning="full", rate=RATE / 5),
    "K = 4, PETA, ASD with a shift of 0.1": Run(shift=0.1),
    "K = 4, PETA, SDS": Run(kind="sds"),
}
FIGURES = {"silhouette_iou": "silhouette IoU", "volume_iou": "volume IoU", "color_error": "colour error"}


def run_ablations(context: DistributedContext, folder: Path, passes: int, batch: int) -> None:
    """Train and score all runs that are not finished, then print and write the results.

    Args:
        folder: holds `base/` and `pool/`.
        passes: U-Net passes per run.
        batch: prompts per iteration and process.

    Raises:
        UserError: the state of a run belongs to other settings, or cannot be written.
    """
    train_specs, scored_specs = split_specs()
    results, rows = {}, []
    for name, run in RUNS.items():
        run_folder = folder / "trend" / run.folder
        if not (run_folder / "result.json").exists():
            run_folder.mkdir(parents=True, exist_ok=True)
            _train(context, folder, run_folder, name, run.settings(passes, batch), train_specs, scored_specs)
            context.wait()
        results[name] = json.loads((run_folder / "result.json").read_text(encoding="utf-8"))
        rows.append(np.asarray(Image.open(run_folder / "row.png")))
    if context.is_main_process:
        report = {"passes": passes, "prompts": batch * context.size, "classes": CLASSES, "runs": results}
        write_atomically(folder / "trend" / "trend.json", (json.dumps(report, indent=1) + "\n").encode())
        write_atomically(folder / "trend" / "trend.png", picture(results, rows))
        print(table(results), end="", flush=True)


def split_specs() -> tuple[list[Spec], list[Spec]]:
    """Return the specs to train on (CLASSES in all colours that are not held out) and the specs to score."""
    plain = [Spec.of(thing, color) for thing in CLASSES for color in NAMES]
    train_specs = [spec for spec in plain if spec not in held_out()]
    chosen = [spec for thing in CLASSES for spec in [s for s in train_specs if s.thing == thing][:_COLORS]]
    return train_specs, chosen + [spec for spec in plain if spec in held_out()]


def _train(
    context: DistributedContext,
    folder: Path,
    run_folder: Path,
    name: str,
    settings: Settings,
    train_specs: list[Spec],
    scored_specs: list[Spec],
) -> None:
    """Start or resume one run; the main process writes `result.json` and `row.png` into `run_folder`."""
    torch.manual_seed(0)
    view_cache = ViewCache(folder / "pool", [(thing, "") for thing in CLASSES])
    base = folder / "base"
    student = make_student(base, settings.fitted(CONFIG), context.device, settings.tuning)
    teachers = make_teachers(student, view_cache, base if settings.tuning == "full" else None)
    trainable = sum(p.numel() for p in student.generator.parameters() if p.requires_grad)

    def progress(trainer: Trainer) -> None:
        error = trainer.log.get("rgb volume", float("nan"))
        print(f"{name}: {trainer.iteration} of {settings.iterations}  rgb {error:.4f}", flush=True)
        if trainer.finished:
            with trainer.averaged():
                scores, row = _score(student, base, settings.steps, scored_specs)
            write_atomically(run_folder / "row.png", encode_image(row, "png"))
            report = {"learns": trainable, **{key: scores[key] for key in ("model", "sphere", "diversity")}}
            write_atomically(run_folder / "result.json", (json.dumps(report, indent=1) + "\n").encode())

    draw = make_draw(view_cache, train_specs, context.device)
    prd.train(
        context, student, teachers, draw, settings, run_folder, autocast=torch.bfloat16, progress=progress
    )


def _score(
    student: Student, base: Path, steps: int, scored_specs: list[Spec]
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the scores of a student and its first result of each class side by side: uint8 [H, W, 3]."""
    words = CLIPTextModel.from_pretrained(base / "text_encoder")
    text = TextEncoder(CLIPTokenizer.from_pretrained(base / "tokenizer"), words)
    model = Model(student.generator, text, replace(CONFIG, steps=steps), base, True)
    pictures: dict[str, np.ndarray] = {}

    def on_result(spec: Spec, seed: int, generated: Generated | None, _: int) -> None:
        if spec.thing not in pictures:
            pictures[spec.thing] = portrait(generated)

    scores = score(make_generate(model), scored_specs, SEEDS, on_result=on_result)
    return scores, sheet(list(pictures.values()), columns=len(pictures))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Format the results as a text table, one run per row, with values for seen / held-out specs."""
    rows = [("", "trainable weights", *FIGURES.values(), "empty", "two seeds differ")]
    for name, result in results.items():
        groups = result["model"].values()
        rows.append(
            (
                name,
                f"{result['learns']:,}",
                *(_join_values([group[key] for group in groups]) for key in FIGURES),
                str(sum(group["empty"] for group in groups)),
                _join_values([group["model"] for group in result["diversity"].values()]),
            )
        )
    return "".join(f"{line}\n" for line in align_columns(rows))


def _join_values(values: list[float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.3f}" for value in values)


def picture(results: dict[str, dict[str, Any]], rows: list[np.ndarray]) -> bytes:
    """Return a PNG with each run's row of results and its silhouette IoU."""
    figure = Figure(figsize=(14, 1.25 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for panel, row, (name, result) in zip(panels, rows, results.items(), strict=True):
        share = _join_values([group["silhouette_iou"] for group in result["model"].values()])
        panel.imshow(row)
        panel.axis("off")
        panel.set_title(f"{name}: silhouette IoU {share} (seen / held out)", fontsize=9, loc="left", pad=2)
    return as_png(figure)
