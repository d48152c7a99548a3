"""Tables 2 to 6 of the PRD paper (arXiv 2503.21694) as data: variants, rows and the paper's figures.

A variant changes the proposed run (PETA, K = 4, all teachers, both renderings). Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from triplaneturbo.models.config import OPEN, TOYWORLD

PROPOSED_STEPS = 4
# The adapters of PETA have 22.68 million parameters on Stable Diffusion 2.1-base, and 1.63 million in the
# built-in model. A shared LoRA of rank 25 is the nearest in both: 22.91 and 1.60 million.
MATCHED_RANK = 25
# What takes the place of the paper's teachers, by the domain of the model.
COUNTERPARTS: Mapping[str, Mapping[str, str]] = {
    OPEN: {"sd": "sd", "mvdream": "mvdream", "richdreamer": "richdreamer"},
    TOYWORLD: {"sd": "sd", "mvdream": "rgb", "richdreamer": "geometry"},
}


@dataclass(frozen=True)
class Variant:
    """What a run changes of the proposed one.

    Attributes:
        name: name in folders and results.
        changes: fields of `FinetuneConfig` that differ.
        without: teacher of the full model that is left out; "" for none.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    without: str = ""

    @property
    def steps(self) -> int:
        """Number of denoising steps K."""
        return self.changes.get("steps", PROPOSED_STEPS)


PROPOSED = Variant("proposed")
ONE_STEP = Variant("one-step", {"steps": 1})
TWO_STEPS = Variant("two-steps", {"steps": 2})
FULL_TUNING = Variant("full-tuning", {"tuning": "full"})
BASIC_LORA = Variant("basic-lora", {"tuning": "lora", "rank": MATCHED_RANK})
WITHOUT_SD = Variant("without-sd", without="sd")
WITHOUT_MVDREAM = Variant("without-mvdream", without="mvdream")
WITHOUT_RICHDREAMER = Variant("without-richdreamer", without="richdreamer")
WITHOUT_VOLUME = Variant("without-volume", {"renderings": ("surface",)})
WITHOUT_SURFACE = Variant("without-surface", {"renderings": ("volume",)})
RANK_8 = Variant("rank-8", {"rank": 8})
RANK_32 = Variant("rank-32", {"rank": 32})


@dataclass(frozen=True)
class AblationRow:
    """One row of a table.

    Attributes:
        label: name in the paper.
        variant: the run.
        clip_score, r_at_1: the paper's "C.S." and "R@1" in percent, as printed.
    """

    label: str
    variant: Variant
    clip_score: str
    r_at_1: str


@dataclass(frozen=True)
class AblationTable:
    """One table of the paper."""

    number: int
    title: str
    rows: tuple[AblationRow, ...]


def _proposed(label: str) -> AblationRow:
    return AblationRow(label, PROPOSED, "68.2", "32.3")


TABLES: Mapping[int, AblationTable] = {
    table.number: table
    for table in (
        AblationTable(
            2,
            "number of steps K",
            (
                AblationRow("K = 1", ONE_STEP, "50.9", "14.4"),
                AblationRow("K = 2", TWO_STEPS, "62.6", "22.4"),
                _proposed("K = 4 (proposed)"),
            ),
        ),
        AblationTable(
            3,
            "adaptation",
            (
                AblationRow("full tuning", FULL_TUNING, "35.8", "0.35"),
                AblationRow(f"basic LoRA, rank {MATCHED_RANK}", BASIC_LORA, "54.2", "11.1"),
                _proposed("PETA (proposed)"),
            ),
        ),
        AblationTable(
            4,
            "teachers",
            (
                AblationRow("without SD", WITHOUT_SD, "63.0", "20.1"),
                AblationRow("without MVDream", WITHOUT_MVDREAM, "67.4", "25.9"),
                AblationRow("without RichDreamer", WITHOUT_RICHDREAMER, "41.5", "11.4"),
                _proposed("all (proposed)"),
            ),
        ),
        AblationTable(
            5,
            "renderings",
            (
                AblationRow("without volume rendering", WITHOUT_VOLUME, "25.1", "0.01"),
                AblationRow("without rasterization", WITHOUT_SURFACE, "67.4", "25.9"),
                _proposed("both (proposed)"),
            ),
        ),
        AblationTable(
            6,
            "rank of PETA",
            (
                AblationRow("rank 8", RANK_8, "62.9", "15.6"),
                _proposed("rank 16 (proposed)"),
                AblationRow("rank 32", RANK_32, "66.2", "26.6"),
            ),
        ),
    )
}


def variants_of(tables: Iterable[AblationTable]) -> list[Variant]:
    """Return the variants of some tables, each once; the proposed one, which all share, is first."""
    rows = [row for table in tables for row in table.rows]
    names = dict.fromkeys(("proposed", *(row.variant.name for row in rows)))
    by_name = {row.variant.name: row.variant for row in rows}
    return [by_name[name] for name in names]
