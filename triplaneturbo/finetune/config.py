"""What a user asks of a fine-tuning run, checked before any work starts. Imports nothing heavy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.models.adapters import ADAPTERS, NAME, adapter, adapters, has_base_weights
from triplaneturbo.request import SEED_LIMIT, shown
from triplaneturbo.utils.atomic_files import write_whole

FILE = "order.json"
MOST_ITERATIONS = 1_000_000
MOST_BATCH = 256
HIGHEST_RATE = 0.1
MOST_MEMORY = 10_000  # GB
TUNINGS = ("peta", "lora", "full")
OPTIMIZERS = ("adamw", "soap", "adan")
RENDERINGS = ("volume", "surface")
RANKS = (0, 4, 8, 16, 32)
# By whether the model is one of the small world; in the order in which they are asked.
TEACHERS = {True: ("rgb", "geometry", "sd"), False: ("mvdream", "richdreamer", "sd")}


@dataclass(frozen=True)
class FinetuneConfig:
    """A run, as its user says it; kept as `order.json` in the run's folder.

    Attributes:
        name: of the adapter that comes of it, as the library has names.
        prompts: what is learned.
        held_out: what is only judged by.
        corpus: a file of very many prompts, which is streamed and takes the place of `prompts`; "": none.
        column: of the corpus, where it has several; "": the one that is called prompt or the like.
        embeddings: a folder of text embeddings that `python -m triplaneturbo embed` has made; "": none.
        iterations: optimiser steps.
        batch: prompts an iteration and process.
        rate: the highest learning rate.
        optimizer: "adamw", "soap" or "adan".
        teachers: those that are asked, by name; (): all of the model's.
        start: the library's adapter that the run begins with; "": the model's own.
        tuning: what learns: "peta", "lora" or "full".
        rank: of a new adapter that begins from nothing; 0: the model's own rank, so that its adapter is begun
            with.
        steps: K; 0: the model's own.
        scored: how many of the K steps are rendered in an iteration; 0: all.
        renderings: "volume", "surface" or both.
        begun: how much of the schedules lies behind the trained adapter that the run begins with, 0 to 1.
        seed: of all random numbers.
        preview_every: iterations between pictures; 0: none are drawn.
        preview_prompts: what they show; (): held-out prompts, then learned ones, eight in all.
        memory: GB (2^30 bytes) of the device that a run of the full model may have; 0: what is free of it.
    """

    name: str
    prompts: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    corpus: str = ""
    column: str = ""
    embeddings: str = ""
    iterations: int = 200
    batch: int = 4
    rate: float = 1e-3
    optimizer: str = "soap"
    teachers: tuple[str, ...] = ()
    start: str = ""
    tuning: str = "peta"
    rank: int = 0
    steps: int = 0
    scored: int = 0
    renderings: tuple[str, ...] = RENDERINGS
    begun: float = 1.0
    seed: int = 0
    preview_every: int = 25
    preview_prompts: tuple[str, ...] = ()
    memory: float = 0.0

    def check(self, library: Path = ADAPTERS) -> None:
        """Nothing, if a run can be made of it.

        Args:
            library: the folder of adapters.

        Raises:
            UserError: a value cannot be, there is no such adapter to start from, or the name is taken.
        """
        check_name(self.name)
        if self.name in adapters(library):
            raise UserError(f"There is an adapter {self.name} already: choose another name for the new one.")
        self.check_values()
        if not self.prompts and not self.corpus:
            raise UserError("No usable prompt is left: give at least one, such as 'a red mushroom'.")
        if self.start and has_base_weights(adapter(self.start, library)):
            raise UserError(
                f"The adapter {self.start} comes of full tuning, which cannot be gone on with: begin with"
                " another one."
            )

    def check_values(self) -> None:
        """Nothing, if each value can be, whatever is in the library and among the prompts.

        Raises:
            UserError: one cannot.
        """
        _whole("The number of optimiser steps", self.iterations, 1, MOST_ITERATIONS)
        _whole("The batch", self.batch, 1, MOST_BATCH)
        _number("The learning rate", self.rate, 0, HIGHEST_RATE, "above 0 and at most")
        _number("What is begun of the schedules", self.begun, -1e-9, 1, "0 to")
        _one_of("The optimiser", self.optimizer, OPTIMIZERS)
        _one_of("What learns", self.tuning, TUNINGS)
        if self.tuning == "full" and self.start:
            raise UserError("Full tuning has no adapter to begin with: choose peta or lora tuning.")
        _one_of("The rank", self.rank, RANKS)
        _whole("The number of denoising steps", self.steps, 0, 50)
        _whole("The number of scored steps", self.scored, 0, self.steps or 50)
        _whole("The seed", self.seed, 0, SEED_LIMIT)
        _whole("The number of steps between previews", self.preview_every, 0, MOST_ITERATIONS)
        _number("The memory in GB", self.memory, -1e-9, MOST_MEMORY, "0 to")
        for rendering in self.renderings:
            _one_of("A rendering", rendering, RENDERINGS)
        if not self.renderings:
            raise UserError(f"No rendering is left: choose {' or '.join(RENDERINGS)}, or both.")
        known = dict.fromkeys(name for names in TEACHERS.values() for name in names)
        for teacher in self.teachers:
            _one_of("A teacher", teacher, tuple(known))

    def save(self, folder: Path) -> None:
        """Write `order.json` into a run's folder.

        Raises:
            UserError: it cannot be written.
        """
        write_whole(folder / FILE, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> FinetuneConfig:
        """Read a run's `order.json`; keys of a newer version are ignored.

        Raises:
            UserError: it is missing or broken.
        """
        path = folder / FILE
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            known: dict[str, Any] = {one.name: told[one.name] for one in fields(cls) if one.name in told}
            known |= {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
            return cls(**known)
        except FileNotFoundError:
            raise UserError(f"There is no run in {folder}: begin one.") from None
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is broken ({error}): begin the run anew.") from None


def _try(world: bool) -> dict[str, Any]:
    if world:
        return {
            "iterations": 50,
            "batch": 8,
            "rate": 1e-3,
            "optimizer": "soap",
            "scored": 1,
            "preview_every": 25,
        }
    return {"iterations": 50, "batch": 1, "rate": 2e-4, "optimizer": "adan", "preview_every": 25}


def _short(world: bool) -> dict[str, Any]:
    if world:
        return {**_try(True), "iterations": 600, "preview_every": 50}
    return {**_try(False), "iterations": 500, "preview_every": 50}


def _thorough(world: bool) -> dict[str, Any]:
    if world:
        return {**_try(True), "iterations": 3000, "preview_every": 250}
    return {**_try(False), "iterations": 5000, "batch": 2, "preview_every": 250}


# How long a run takes -> the fields of its `FinetuneConfig`, by whether the model is one of the toy world.
PRESETS: Mapping[str, Callable[[bool], dict[str, Any]]] = {
    "try": _try,
    "short": _short,
    "thorough": _thorough,
}


def check_name(name: str) -> None:
    """Nothing, if the library can have an adapter of that name.

    Raises:
        UserError: it cannot.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(
            f"The name {shown(name)} cannot be: use up to 64 of a-z, 0-9, - and _, the first no - or _."
        )


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
