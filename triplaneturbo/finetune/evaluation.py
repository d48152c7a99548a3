"""Evaluation of a run: meshes of some prompts before and after training, as an image sheet and as scores.

Toy-world models are compared with the ground truth (toyworld/scoring/score.py). Other models are scored by
CLIP retrieval among the evaluated prompts, if the model's folder contains a CLIP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triplaneturbo.evaluate.clip import CONFIG_NAME, Clip, rank
from triplaneturbo.finetune.preview import encode_grid, generate
from triplaneturbo.finetune.run import SCORES, SHEET
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.render.cameras import orbit
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.generated import Generated, photograph
from triplaneturbo.toyworld.scoring.score import compare, summary
from triplaneturbo.toyworld.scoring.score_report import portrait, with_caption
from triplaneturbo.toyworld.training.clip import Judge
from triplaneturbo.toyworld.training.data import meaning
from triplaneturbo.utils.atomic_files import write_atomically

SEEDS = (0, 1)
_PAIRS = 2  # prompts per row of the sheet
_GREY = (0.8, 0.8, 0.8)


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
        clip_folder = training_setup.folder / "clip"
        self._clip = Clip.load(clip_folder) if (clip_folder / CONFIG_NAME).is_file() else None
        self._judge = Judge(self._clip) if self._clip is not None and training_setup.config.world else None

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
                entry = self._entry(made, prompt)
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
            if self.training_setup.config.world:
                row.append(portrait(ground_truth.generated(meaning(prompt), 0)))
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

    def _entry(self, made: Generated | None, prompt: str) -> dict[str, Any]:
        if self.training_setup.config.world:
            spec = meaning(prompt)
            return compare(made, spec, ground_truth.occupancy(spec), self._judge)[0]
        clip_rank = None
        if self._clip is not None:
            clip_rank = len(self.prompts) - 1 if made is None else self._retrieval_rank(made, prompt)
        return {"rank": clip_rank, "empty": made is None}

    def _retrieval_rank(self, made: Generated, prompt: str) -> int:
        """Return how many other prompts CLIP finds closer to the mesh; 0 is best."""
        assert self._clip is not None
        cameras = orbit([45.0, 135.0, 225.0, 315.0], 20.0, 2.45)
        photos = photograph(made, cameras, self._clip.size, _GREY)[None]
        target = torch.tensor([self.prompts.index(prompt)])
        return int(rank(self._clip.embed_views(photos), self._clip.embed_texts(self.prompts), target))

    def _summary(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        if not entries:
            return None
        if self.training_setup.config.world:
            return summary(entries)
        ranks = [entry["rank"] for entry in entries]
        hits = None if None in ranks else sum(r < 1 for r in ranks) / len(ranks)
        return {"count": len(entries), "r_at_1": hits, "empty": sum(entry["empty"] for entry in entries)}


def told(scores: dict[str, Any]) -> list[str]:
    """Format the scores as lines such as "learned: volume IoU 0.82 -> 0.86, ..."."""
    names = {"volume_iou": "volume IoU", "silhouette_iou": "silhouette IoU", "color_error": "colour error",
             "r_at_1": "R@1", "empty": "empty"}  # fmt: skip
    lines = []
    for group in ("learned", "held out"):
        before, after = scores["before"][group], scores["after"][group]
        if before is None or after is None:
            continue
        parts = [
            f"{name} {_number(before[key])} -> {_number(after[key])}"
            for key, name in names.items()
            if before.get(key) is not None and after.get(key) is not None
        ]
        lines.append(f"{group}: {', '.join(parts)}")
    return lines


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
