"""Registry of teachers. A new teacher is one new file with a `TeacherLoader` and one line in `TEACHERS`.

What the page and the command line show is here. Loaders are imported when a teacher is used, so that
teachers can be listed without torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triplaneturbo.models.config import OPEN, TOYWORLD
from triplaneturbo.teachers.settings import KINDS

if TYPE_CHECKING:
    from triplaneturbo.teachers.loader import TeacherLoader


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher by name.

    Attributes:
        name: name in options, settings and logs.
        label: what the page calls it where teachers are chosen.
        title: title of its plot.
        domains: kinds of models that it can teach: "open" (open vocabulary), "toyworld" or both.
        source: its `TeacherLoader`, as "module:attribute".
        kinds: kinds of score that it can give.
    """

    name: str
    label: str
    title: str
    domains: tuple[str, ...]
    source: str
    kinds: tuple[str, ...] = KINDS

    def loader(self) -> TeacherLoader:
        """Import and return the loader."""
        module, _, attribute = self.source.partition(":")
        loader: TeacherLoader = getattr(importlib.import_module(module), attribute)
        return loader


_HERE = "triplaneturbo.teachers"
_CLOSED = f"{_HERE}.closed_form"
_NO_GUIDANCE = ("asd", "sds")  # the others need an unconditional prediction or a U-Net

# In the order of evaluation.
TEACHERS: dict[str, TeacherSpec] = {
    spec.name: spec
    for spec in (
        TeacherSpec("rgb", "Colours (toy world)", "Colours", (TOYWORLD,), f"{_CLOSED}:RGB", _NO_GUIDANCE),
        TeacherSpec(
            "geometry", "Shapes (toy world)", "Shapes", (TOYWORLD,), f"{_CLOSED}:GEOMETRY", _NO_GUIDANCE,
        ),
        TeacherSpec("mvdream", "MVDream", "MVDream", (OPEN,), f"{_HERE}.mvdream:LOADER"),
        TeacherSpec("richdreamer", "RichDreamer", "RichDreamer", (OPEN,), f"{_HERE}.richdreamer:LOADER"),
        TeacherSpec(
            "sd", "Stable Diffusion (base model)", "Stable Diffusion", (OPEN, TOYWORLD),
            f"{_HERE}.stable_diffusion:LOADER",
        ),
    )
}  # fmt: skip


def teachers_of(domain: str) -> tuple[str, ...]:
    """Return the names of the teachers of a domain, in the order of evaluation."""
    return tuple(name for name, spec in TEACHERS.items() if domain in spec.domains)
