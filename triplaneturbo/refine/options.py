"""What a user chooses for a refinement. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from triplaneturbo.domains.registry import find_domain
from triplaneturbo.errors import UserError
from triplaneturbo.representations.registry import REPRESENTATIONS
from triplaneturbo.request import SEED_LIMIT
from triplaneturbo.teachers.registry import TEACHERS
from triplaneturbo.teachers.settings import KINDS

PATHS = ("interpolate", "checkpoints", "none")
STEP_LIMIT = 100_000
SAVINGS = "savings.json"
"""File of the memory savings of a refinement, in its folder."""
OUT_OF_MEMORY = "Out of memory while refining; close other programs, use --path none, or the small model."


@dataclass(frozen=True)
class RefineOptions:
    """Options of a refinement.

    Attributes:
        representation: a name in `REPRESENTATIONS`.
        steps: optimizer steps; None: the default of the model's domain.
        teachers: names of teachers; none: the defaults of the model's domain.
        path: one of PATHS, see `distill.ptd.RefineSettings`; "": "interpolate", for teachers that have a
            network.
        score: kind of score distillation; "": the teacher's default.
        seed: seed of cameras, timesteps and noise.
    """

    representation: str = "field"
    steps: int | None = None
    teachers: tuple[str, ...] = ()
    path: str = ""
    score: str = ""
    seed: int = 0

    def checked(self) -> RefineOptions:
        """Return the options if all values are valid.

        Raises:
            UserError: a value is invalid.
        """
        if self.representation not in REPRESENTATIONS:
            raise _unknown("representation", self.representation, REPRESENTATIONS)
        if self.path and self.path not in PATHS:
            raise _unknown("path", self.path, PATHS)
        if self.score and self.score not in KINDS:
            raise _unknown("score", self.score, KINDS)
        for name in self.teachers:
            if name not in TEACHERS:
                raise _unknown("teacher", name, TEACHERS)
        if self.steps is not None and not 1 <= self.steps <= STEP_LIMIT:
            raise UserError(f"Invalid number of steps {self.steps}; use 1 to {STEP_LIMIT}.")
        if not 0 <= self.seed <= SEED_LIMIT:
            raise UserError(f"Invalid seed {self.seed}; use 0 to {SEED_LIMIT}.")
        return self

    def teachers_for(self, domain: str, default: tuple[str, ...], model: str) -> tuple[str, ...]:
        """Return the teachers of a refinement of a model.

        Args:
            domain: the model's domain.
            default: the domain's teachers if none were chosen.
            model: name of the model in messages.

        Raises:
            UserError: a teacher does not know the domain, or cannot give the chosen score.
        """
        known = find_domain(domain).teachers
        for name in self.teachers:
            if name not in known:
                raise UserError(f"{model} has no teacher {name}; choose from {', '.join(known)}.")
        spec = REPRESENTATIONS[self.representation]
        fitting = [one for one in known if spec.has_shape or not TEACHERS[one].reads_shape]
        names = self.teachers or tuple(one for one in default if one in fitting)
        for name in names:
            if name not in fitting:
                raise UserError(
                    f"The teacher {name} reads the shape, which {self.representation} keeps; choose from"
                    f" {', '.join(fitting)}."
                )
            if self.score and self.score not in TEACHERS[name].kinds:
                able = [other for other in known if self.score in TEACHERS[other].kinds]
                raise UserError(
                    f"The teacher {name} cannot give {self.score} scores; choose from {', '.join(able)}, or"
                    f" another score: {', '.join(TEACHERS[name].kinds)}."
                )
        return names


def _unknown(what: str, value: object, choices: Iterable[str]) -> UserError:
    return UserError(f"Unknown {what} {value!r}; choose from {', '.join(choices)}.")
