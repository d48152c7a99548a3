"""Evaluation of a run: meshes of some prompts before and after training, as an image sheet and as scores.

The judge of the model's domain gives the scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from triplaneturbo.domains.registry import find_domain, measures
from triplaneturbo.finetune.domain_training import training_of
from triplaneturbo.finetune.preview import encode_grid, generate
from triplaneturbo.finetune.run import SCORES, SHEET
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.toyworld.scoring.score_report import portrait, with_caption
from triplaneturbo.utils.atomic_files import write_atomically

SEEDS = (0, 1)
_PAIRS = 2  # prompts per row of the sheet


class Evaluation:
    """Evaluates a student on some prompts and writes the results to the run's folder.

    Args:
        training_setup: the run's student and model.
        prompts: evaluation prompts, held-out ones first.
        held_out: number of held-out prompts.
        folder: folder of the run.
    """

    def __init__(
        self, training_setup: TrainingSetup, prompts: Sequence[str], held_out: int, folder: Path
    ) -> None:
        self.training_setup, self.prompts, self.held_out, self.folder = (
            training_setup,
            tuple(prompts),
            held_out,
            folder,
        )
        domain = find_domain(training_setup.config.domain)
        self._judge = training_of(domain).judge(training_setup, self.prompts)

    def evaluate(self, when: str) -> Iterator[str]:
        """Evaluate the current student; yield a progress message after each mesh.

        Args:
            when: "before" or "after" training; part of the file names.

        Raises:
            UserError: if the folder cannot be written.
        """
        entries, tiles = [], []
        for number, prompt in enumerate(self.prompts):
            for seed in SEEDS:
                made = generate(self.training_setup, prompt, seed)
                entry = self._judge.score(made, prompt)
                entries.append({**entry, "prompt": prompt, "seed": seed, "held_out": number < self.held_out})
                if seed == SEEDS[0]:
                    tiles.append(portrait(made))
                yield f"evaluating {prompt}"
        buffer = BytesIO()
        np.save(buffer, np.stack(tiles))
        write_atomically(self.folder / f"{when}.npy", buffer.getvalue())
        write_atomically(self.folder / f"{when}.json", (json.dumps(entries) + "\n").encode())

    def write_results(self) -> dict[str, Any]:
        """Write the sheet and the scores of before and after training; return the scores.

        Raises:
            UserError: if they cannot be written.
        """
        before, after = (np.load(self.folder / f"{when}.npy") for when in ("before", "after"))
        tiles = []
        for prompt, one, other in zip(self.prompts, before, after, strict=True):
            row = [one, other]
            reference = self._judge.reference(prompt)
            if reference is not None:
                row.append(reference)
            tiles.append(with_caption(np.concatenate(row, 1), prompt))
        write_atomically(self.folder / SHEET, encode_grid(tiles, _PAIRS))
        scores: dict[str, Any] = {"prompts": list(self.prompts), "seeds": list(SEEDS)}
        for when in ("before", "after"):
            entries = json.loads((self.folder / f"{when}.json").read_text(encoding="utf-8"))
            scores[when] = {
                "learned": self._summary([entry for entry in entries if not entry["held_out"]]),
                "held out": self._summary([entry for entry in entries if entry["held_out"]]),
                "results": entries,
            }
        write_atomically(self.folder / SCORES, (json.dumps(scores, indent=1) + "\n").encode())
        return scores

    def _summary(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        return self._judge.summary(entries) if entries else None


def score_lines(scores: dict[str, Any]) -> list[str]:
    """Format the scores as lines such as "learned: volume IoU 0.82 -> 0.86, ..."."""
    lines = []
    for group in ("learned", "held out"):
        before, after = scores["before"][group], scores["after"][group]
        if before is None or after is None:
            continue
        parts = [
            f"{measure.name} {_number(before[key])} -> {_number(after[key])}"
            for key, measure in measures().items()
            if before.get(key) is not None and after.get(key) is not None
        ]
        lines.append(f"{group}: {', '.join(parts)}")
    return lines


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
