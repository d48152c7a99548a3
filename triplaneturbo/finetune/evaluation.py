"""A run judged: what the model made of some prompts before it and after it, as a sheet and in figures.

A model of the world is compared with the world's truth (world/score.py); any other by a CLIP, where one lies
in the model's folder, by how often it finds an object's own prompt among all that are judged.
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
from triplaneturbo.finetune.preview import make, png
from triplaneturbo.finetune.run import SCORES, SHEET
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.render.cameras import orbit
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.generated import Generated, photograph
from triplaneturbo.toyworld.scoring.score import compare, summary
from triplaneturbo.toyworld.scoring.score_report import portrait, with_caption
from triplaneturbo.toyworld.training.clip import Judge
from triplaneturbo.toyworld.training.data import meaning
from triplaneturbo.utils.atomic_files import write_whole

SEEDS = (0, 1)
_PAIRS = 2  # a row of the sheet
_GREY = (0.8, 0.8, 0.8)


class Evaluation:
    """Judges the student of a lesson by some prompts, into a run's folder.

    Args:
        prompts: those that are judged by.
        held_out: how many of them, from the first on, are not learned.
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
        place = training_setup.folder / "clip"
        self._clip = Clip.load(place) if (place / CONFIG_NAME).is_file() else None
        self._judge = Judge(self._clip) if self._clip is not None and training_setup.config.world else None

    def look(self, when: str) -> Iterator[str]:
        """Judge the student as it is now; yields what is done after each piece of work.

        Args:
            when: "before" or "after".

        Raises:
            UserError: the folder cannot be written.
        """
        entries, tiles = [], []
        for number, prompt in enumerate(self.prompts):
            for seed in SEEDS:
                made = make(self.training_setup, prompt, seed)
                entry = self._entry(made, prompt)
                entries.append({**entry, "prompt": prompt, "seed": seed, "held_out": number < self.held_out})
                if seed == SEEDS[0]:
                    tiles.append(portrait(made))
                yield f"judging {prompt}"
        buffer = BytesIO()
        np.save(buffer, np.stack(tiles))
        write_whole(self.folder / f"{when}.npy", buffer.getvalue())
        write_whole(self.folder / f"{when}.json", (json.dumps(entries) + "\n").encode())

    def conclude(self) -> dict[str, Any]:
        """Write the sheet and the scores of before and after; returns the scores.

        Raises:
            UserError: they cannot be written.
        """
        before, after = (np.load(self.folder / f"{when}.npy") for when in ("before", "after"))
        tiles = []
        for prompt, one, other in zip(self.prompts, before, after, strict=True):
            row = [one, other]
            if self.training_setup.config.world:
                row.append(portrait(ground_truth.generated(meaning(prompt), 0)))
            tiles.append(with_caption(np.concatenate(row, 1), prompt))
        write_whole(self.folder / SHEET, png(tiles, _PAIRS))
        scores: dict[str, Any] = {"prompts": list(self.prompts), "seeds": list(SEEDS)}
        for when in ("before", "after"):
            entries = json.loads((self.folder / f"{when}.json").read_text(encoding="utf-8"))
            scores[when] = {
                "learned": self._summary([entry for entry in entries if not entry["held_out"]]),
                "held out": self._summary([entry for entry in entries if entry["held_out"]]),
                "results": entries,
            }
        write_whole(self.folder / SCORES, (json.dumps(scores, indent=1) + "\n").encode())
        return scores

    def _entry(self, made: Generated | None, prompt: str) -> dict[str, Any]:
        if self.training_setup.config.world:
            spec = meaning(prompt)
            return compare(made, spec, ground_truth.occupancy(spec), self._judge)[0]
        place = None
        if self._clip is not None:
            place = len(self.prompts) - 1 if made is None else self._place(made, prompt)
        return {"rank": place, "empty": made is None}

    def _place(self, made: Generated, prompt: str) -> int:
        """How many of the other prompts a CLIP finds nearer to what was made."""
        assert self._clip is not None
        around = orbit([45.0, 135.0, 225.0, 315.0], 20.0, 2.45)
        seen = photograph(made, around, self._clip.size, _GREY)[None]
        right = torch.tensor([self.prompts.index(prompt)])
        return int(rank(self._clip.embed_views(seen), self._clip.embed_texts(self.prompts), right))

    def _summary(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        if not entries:
            return None
        if self.training_setup.config.world:
            return summary(entries)
        ranks = [entry["rank"] for entry in entries]
        hits = None if None in ranks else sum(place < 1 for place in ranks) / len(ranks)
        return {"count": len(entries), "r_at_1": hits, "empty": sum(entry["empty"] for entry in entries)}


def told(scores: dict[str, Any]) -> list[str]:
    """The scores of before and after in lines: "learned: volume IoU 0.82 -> 0.86, ..."."""
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
