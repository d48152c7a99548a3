"""Registry of teachers. A new teacher is one new file with a `TeacherLoader` and one line in `TEACHERS`.

What the page and the command line show is here. Loaders are imported when a teacher is used, so that
teachers can be listed without torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triplaneturbo.teachers.loader import TeacherLoader

OPEN, TOYWORLD = "open", "toyworld"


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher by name.

    Attributes:
        name: name in options, settings and logs.
        label: what the page calls it where teachers are chosen.
        title: title of its plot.
        domains: kinds of models that it can teach: "open" (open vocabulary), "toyworld" or both.
        source: its `TeacherLoader`, as "module:attribute".
    """

    name: str
    label: str
    title: str
    domains: tuple[str, ...]
    source: str

    def loader(self) -> TeacherLoader:
        """Import and return the loader."""
        module, _, attribute = self.source.partition(":")
        loader: TeacherLoader = getattr(importlib.import_module(module), attribute)
        return loader


_HERE = "triplaneturbo.teachers"

# In the order of evaluation.
TEACHERS: dict[str, TeacherSpec] = {
    spec.name: spec
    for spec in (
        TeacherSpec("rgb", "Colours (toy world)", "Colours", (TOYWORLD,), f"{_HERE}.closed_form:RGB"),
        TeacherSpec("geometry", "Shapes (toy world)", "Shapes", (TOYWORLD,), f"{_HERE}.closed_form:GEOMETRY"),
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
