"""FinetuneConfig: the options of a fine-tuning run and their validation. Imports nothing heavy."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from triplaneturbo.distill.renamed_settings import with_current_names
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapters import ADAPTERS, NAME, adapter, adapters, has_base_weights
from triplaneturbo.request import SEED_LIMIT, shown
from triplaneturbo.teachers.registry import TEACHERS
from triplaneturbo.teachers.settings import KINDS, SHIFT_LEVELS, WEIGHTINGS
from triplaneturbo.utils.atomic_files import write_atomically

FILE = "order.json"
MOST_ITERATIONS = 1_000_000
MOST_BATCH = 256
HIGHEST_RATE = 0.1
MOST_MEMORY = 10_000  # GB
TUNINGS = ("peta", "lora", "full")
OPTIMIZERS = ("adamw", "soap", "adan")
RENDERINGS = ("volume", "surface")
# 24 and 25 bracket the size of PETA's adapters where all planes share one (PRD paper, Table 3).
RANKS = (0, 4, 8, 16, 24, 25, 32)
NEW_ADAPTER = "nothing"  # as the start of a run


@dataclass(frozen=True)
class FinetuneConfig:
    """Options of a fine-tuning run, saved as `order.json` in the run's folder.

    Attributes:
        name: name of the resulting adapter.
        prompts: training prompts.
        held_out: prompts that are used for evaluation only.
        corpus: file with a large number of prompts that is streamed instead of `prompts`; "" for none.
        column: column of the corpus; "" for the one named prompt or similar.
        embeddings: folder of text embeddings computed by `python -m triplaneturbo embed`; "" for none.
        iterations: optimizer steps.
        batch: prompts per iteration and process.
        learning_rate: maximum learning rate.
        optimizer: "adamw", "soap" or "adan".
        teachers: names of the teachers; () for all teachers of the model.
        start: adapter to start from; "" for the model's own, "nothing" for a new one, whose schedules start
            at 0.
        tuning: what is trained: "peta", "lora" or "full".
        rank: rank of a new adapter; 0 for the model's own rank, so that its adapter can be the start.
        score: kind of score distillation of all teachers; "" for each teacher's own.
        asd_shift_level: noise level of ASD's shifted prediction, "t" or "own"; see
            `distill.scores.ScoreSettings`.
        weighting: weighting of the scores, "dmd" or "level"; with `score` only.
        ism_stride, ism_interval: timesteps of the inversion of "ism"; see `distill.scores.ScoreSettings`.
        critic_rank, critic_rate: rank and learning rate of the critics of "vsd".
        steps: number of denoising steps K; 0 for the model's own.
        scored_steps: number of the K steps that are scored per iteration; 0 for all.
        renderings: "volume", "surface" or both.
        schedule_offset: position in the schedules of the adapter that the run starts from, 0 to 1.
        seed: seed of all random numbers.
        preview_every: iterations between previews; 0 for none.
        preview_prompts: prompts of the previews; () for up to eight held-out, then training prompts.
        memory: GB (2^30 bytes) of device memory for a run of the full model; 0 for all that is free.
    """

    name: str
    prompts: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    corpus: str = ""
    column: str = ""
    embeddings: str = ""
    iterations: int = 200
    batch: int = 4
    learning_rate: float = 1e-3
    optimizer: str = "soap"
    teachers: tuple[str, ...] = ()
    start: str = ""
    tuning: str = "peta"
    rank: int = 0
    score: str = ""
    asd_shift_level: str = "t"
    weighting: str = "dmd"
    ism_stride: int = 200
    ism_interval: int = 50
    critic_rank: int = 4
    critic_rate: float = 1e-4
    steps: int = 0
    scored_steps: int = 0
    renderings: tuple[str, ...] = RENDERINGS
    schedule_offset: float = 1.0
    seed: int = 0
    preview_every: int = 25
    preview_prompts: tuple[str, ...] = ()
    memory: float = 0.0

    def check(self, library: Path = ADAPTERS) -> None:
        """Validate the configuration for a new run.

        Args:
            library: folder of adapters.

        Raises:
            UserError: if a value is invalid, the adapter to start from is not found, or the name is taken.
        """
        check_name(self.name)
        if self.name in adapters(library):
            raise UserError(f"An adapter named {self.name} already exists: choose another name.")
        self.check_values()
        if not self.prompts and not self.corpus:
            raise UserError("There is no usable prompt: give at least one, such as 'a red mushroom'.")
        start = self.starting_adapter(library)
        if start is not None and has_base_weights(start):
            raise UserError(
                f"The adapter {self.start} was trained with full tuning and cannot be a starting point:"
                " choose another one."
            )

    def starting_adapter(self, library: Path = ADAPTERS) -> Path | None:
        """Return the file of the adapter to start from; None for the model's own or a new one.

        Raises:
            UserError: if the adapter is not found.
        """
        return None if self.start in ("", NEW_ADAPTER) else adapter(self.start, library)

    def check_values(self) -> None:
        """Validate the values that depend neither on the adapter library nor on the prompts.

        Raises:
            UserError: if a value is invalid.
        """
        _whole("The number of optimizer steps", self.iterations, 1, MOST_ITERATIONS)
        _whole("The batch", self.batch, 1, MOST_BATCH)
        _number("The learning rate", self.learning_rate, 0, HIGHEST_RATE, "above 0 and at most")
        _number("The starting position in the schedules", self.schedule_offset, -1e-9, 1, "0 to")
        _one_of("The optimizer", self.optimizer, OPTIMIZERS)
        _one_of("The tuning", self.tuning, TUNINGS)
        if self.tuning == "full" and self.start not in ("", NEW_ADAPTER):
            raise UserError("Full tuning cannot start from an adapter: choose peta or lora tuning.")
        _one_of("The rank", self.rank, RANKS)
        if self.score:
            _one_of("The score", self.score, KINDS)
        _one_of("The level of ASD's shift", self.asd_shift_level, SHIFT_LEVELS)
        _one_of("The weighting", self.weighting, WEIGHTINGS)
        _whole("The stride of ISM", self.ism_stride, 1, 1000)
        _whole("The interval of ISM", self.ism_interval, 1, 1000)
        _one_of("The rank of critics", self.critic_rank, RANKS[1:])
        _number("The learning rate of critics", self.critic_rate, 0, HIGHEST_RATE, "above 0 and at most")
        _whole("The number of denoising steps", self.steps, 0, 50)
        _whole("The number of scored steps", self.scored_steps, 0, self.steps or 50)
        _whole("The seed", self.seed, 0, SEED_LIMIT)
        _whole("The number of steps between previews", self.preview_every, 0, MOST_ITERATIONS)
        _number("The memory in GB", self.memory, -1e-9, MOST_MEMORY, "0 to")
        for rendering in self.renderings:
            _one_of("A rendering", rendering, RENDERINGS)
        if not self.renderings:
            raise UserError(f"No rendering is selected: choose {' or '.join(RENDERINGS)}, or both.")
        for teacher in self.teachers:
            _one_of("A teacher", teacher, tuple(TEACHERS))

    def save(self, folder: Path) -> None:
        """Write `order.json` into a run's folder.

        Raises:
            UserError: if it cannot be written.
        """
        write_atomically(folder / FILE, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> FinetuneConfig:
        """Load a run's `order.json`; unknown keys (of a newer version) are ignored.

        Raises:
            UserError: if it is missing or broken.
        """
        path = folder / FILE
        try:
            values = with_current_names(json.loads(path.read_text(encoding="utf-8")))
            known: dict[str, Any] = {f.name: values[f.name] for f in fields(cls) if f.name in values}
            known |= {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
            return cls(**known)
        except FileNotFoundError:
            raise UserError(f"There is no run in {folder}: start one.") from None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is broken ({error}): start the run again.") from None


def check_name(name: str) -> None:
    """Validate the name of an adapter.

    Raises:
        UserError: if it is invalid.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(
            f"The name {shown(name)} is invalid: use up to 64 of a-z, 0-9, - and _, starting with a-z or 0-9."
        )
    if name == NEW_ADAPTER:
        raise UserError(f"The name {name} stands for a new adapter: choose another name.")


def _whole(what: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(f"{what} should be a whole number, {least} to {most:,}, not {shown(value)}.")


def _number(what: str, value: object, above: float, most: float, range_: str) -> None:
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not right or not above < value <= most:  # type: ignore[operator]
        raise UserError(f"{what} should be {range_} {most:g}, not {shown(value)}.")


def _one_of(what: str, value: object, known: tuple[Any, ...]) -> None:
    if value not in known:
        names = ", ".join(map(str, known[:-1]))
        raise UserError(f"{what} should be {names} or {known[-1]}, not {shown(value)}.")
