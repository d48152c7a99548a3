"""First trends, on a part of the world: K = 1, 2, 4 steps; PETA, basic LoRA, full tuning; ASD's shift, SDS.

    python -m triplaneturbo.toyworld trend --folder runs/small

Every run starts from the same small Stable Diffusion, which `world pretrain` leaves in the folder, and has
the same budget, so many passes of the U-Net: half the steps K leave twice the iterations. Runs go on where
they were stopped. What comes out is a table, and `trend.json` and `trend.png` in the folder's `trend/`.
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
from triplaneturbo.distill.scores import Kind
from triplaneturbo.distill.settings import Settings, Tuning
from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.preview import sheet
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.weights import Model
from triplaneturbo.toyworld.captions.combinations import held_out
from triplaneturbo.toyworld.scene.palette import NAMES
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scene.view_cache import ViewCache
from triplaneturbo.toyworld.scoring.generated import Generated, maker
from triplaneturbo.toyworld.scoring.score import score
from triplaneturbo.toyworld.scoring.score_report import aligned, portrait
from triplaneturbo.toyworld.training.curves import as_png
from triplaneturbo.toyworld.training.train import CONFIG, SMALL, make_draw, make_student, make_teachers
from triplaneturbo.utils.atomic_files import write_whole
from triplaneturbo.utils.distributed import DistributedContext

CLASSES = (
    "mushroom", "chair", "duck", "car", "rocket", "fish", "teapot", "tree", "table", "cat", "guitar", "house",
)  # fmt: skip
RATE = 1e-3
SEEDS = (0, 1)  # of the results that are scored
_COLORS = 2  # of each class, seen ones, that are scored beside all that is held out


@dataclass(frozen=True)
class Run:
    """What a run does its own way."""

    steps: int = 4
    tuning: Tuning = "peta"
    rate: float = RATE
    kind: Kind = "asd"
    shift: float = SMALL.teachers["rgb"].shift

    @property
    def folder(self) -> str:
        """The name of its folder."""
        score = "sds" if self.kind == "sds" else f"asd-{self.shift:g}"
        return f"{self.tuning}-{self.steps}-{self.rate:g}-{score}"

    def settings(self, passes: int, batch: int) -> Settings:
        """What the trainer is told; the closed forms alone change how they are listened to."""
        teachers = {
            name: how if name == "sd" else replace(how, kind=self.kind, shift=self.shift)
            for name, how in SMALL.teachers.items()
        }
        return replace(
            SMALL,
            iterations=passes // self.steps,
            batch=batch,
            steps=self.steps,
            scored=None,
            tuning=self.tuning,
            rate=self.rate,
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


def trend(team: DistributedContext, folder: Path, passes: int, batch: int) -> None:
    """Do all runs that are not done yet and tell what came out.

    Args:
        folder: holds `base/` and `pool/`.
        passes: of the U-Net, in each run.
        batch: prompts an iteration and process.

    Raises:
        UserError: a run's state belongs to other settings, or cannot be written.
    """
    seen, asked = specs()
    results, rows = {}, []
    for name, run in RUNS.items():
        place = folder / "trend" / run.folder
        if not (place / "result.json").exists():
            place.mkdir(parents=True, exist_ok=True)
            _train(team, folder, place, name, run.settings(passes, batch), seen, asked)
            team.wait()
        results[name] = json.loads((place / "result.json").read_text(encoding="utf-8"))
        rows.append(np.asarray(Image.open(place / "row.png")))
    if team.is_main_process:
        told = {"passes": passes, "prompts": batch * team.size, "classes": CLASSES, "runs": results}
        write_whole(folder / "trend" / "trend.json", (json.dumps(told, indent=1) + "\n").encode())
        write_whole(folder / "trend" / "trend.png", picture(results, rows))
        print(table(results), end="", flush=True)


def specs() -> tuple[list[Spec], list[Spec]]:
    """What is trained on: the classes in all colours that are not held out. And what is scored."""
    plain = [Spec.of(thing, color) for thing in CLASSES for color in NAMES]
    seen = [spec for spec in plain if spec not in held_out()]
    chosen = [spec for thing in CLASSES for spec in [s for s in seen if s.thing == thing][:_COLORS]]
    return seen, chosen + [spec for spec in plain if spec in held_out()]


def _train(
    team: DistributedContext,
    folder: Path,
    place: Path,
    name: str,
    settings: Settings,
    seen: list[Spec],
    asked: list[Spec],
) -> None:
    """Do or go on with one run in `place`; the leading process leaves `result.json` and `row.png` there."""
    torch.manual_seed(0)
    pool = ViewCache(folder / "pool", [(thing, "") for thing in CLASSES])
    base = folder / "base"
    student = make_student(base, settings.fitted(CONFIG), team.device, settings.tuning)
    teachers = make_teachers(student, pool, base if settings.tuning == "full" else None)
    learns = sum(p.numel() for p in student.generator.parameters() if p.requires_grad)

    def progress(trainer: Trainer) -> None:
        error = trainer.log.get("rgb volume", float("nan"))
        print(f"{name}: {trainer.iteration} of {settings.iterations}  rgb {error:.4f}", flush=True)
        if trainer.finished:
            with trainer.averaged():
                scores, row = _score(student, base, settings.steps, asked)
            write_whole(place / "row.png", encode_image(row, "png"))
            told = {"learns": learns, **{key: scores[key] for key in ("model", "sphere", "diversity")}}
            write_whole(place / "result.json", (json.dumps(told, indent=1) + "\n").encode())

    draw = make_draw(pool, seen, team.device)
    prd.train(team, student, teachers, draw, settings, place, autocast=torch.bfloat16, progress=progress)


def _score(student: Student, base: Path, steps: int, asked: list[Spec]) -> tuple[dict[str, Any], np.ndarray]:
    """What `score` says of a student, and its first result of each class side by side."""
    words = CLIPTextModel.from_pretrained(base / "text_encoder")
    text = TextEncoder(CLIPTokenizer.from_pretrained(base / "tokenizer"), words)
    model = Model(student.generator, text, replace(CONFIG, steps=steps), base, True)
    pictures: dict[str, np.ndarray] = {}

    def watch(spec: Spec, seed: int, made: Generated | None, _: int) -> None:
        if spec.thing not in pictures:
            pictures[spec.thing] = portrait(made)

    scores = score(maker(model), asked, SEEDS, watch=watch)
    return scores, sheet(list(pictures.values()), columns=len(pictures))


def table(results: dict[str, dict[str, Any]]) -> str:
    """The runs one below the other, seen / held out, for a terminal."""
    rows = [("", "weights that learn", *FIGURES.values(), "empty", "two seeds differ")]
    for name, result in results.items():
        groups = result["model"].values()
        rows.append(
            (
                name,
                f"{result['learns']:,}",
                *(_both([group[key] for group in groups]) for key in FIGURES),
                str(sum(group["empty"] for group in groups)),
                _both([group["model"] for group in result["diversity"].values()]),
            )
        )
    return "".join(f"{line}\n" for line in aligned(rows))


def _both(values: list[float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.3f}" for value in values)


def picture(results: dict[str, dict[str, Any]], rows: list[np.ndarray]) -> bytes:
    """A PNG: each run's row of results with its silhouette IoU."""
    figure = Figure(figsize=(14, 1.25 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for panel, row, (name, result) in zip(panels, rows, results.items(), strict=True):
        share = _both([group["silhouette_iou"] for group in result["model"].values()])
        panel.imshow(row)
        panel.axis("off")
        panel.set_title(f"{name}: silhouette IoU {share} (seen / held out)", fontsize=9, loc="left", pad=2)
    return as_png(figure)
