"""Registry of teachers. A new teacher is one new file with a `TeacherLoader` and one line in `TEACHERS`.

The domains (triplaneturbo/domains/) name the teachers of their models.
What the page and the command line show is here. Loaders are imported when a teacher is used, so that
teachers can be listed without torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        source: its `TeacherLoader`, as "module:attribute".
        kinds: kinds of score that it can give.
        reads_shape: whether it reads normals or depths.
    """

    name: str
    label: str
    title: str
    source: str
    kinds: tuple[str, ...] = KINDS
    reads_shape: bool = False

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
        TeacherSpec("rgb", "Colours (toy world)", "Colours", f"{_CLOSED}:RGB", _NO_GUIDANCE),
        TeacherSpec(
            "geometry",
            "Shapes (toy world)",
            "Shapes",
            f"{_CLOSED}:GEOMETRY",
            _NO_GUIDANCE,
            reads_shape=True,
        ),
        TeacherSpec("mvdream", "MVDream", "MVDream", f"{_HERE}.mvdream:LOADER"),
        TeacherSpec(
            "richdreamer",
            "RichDreamer",
            "RichDreamer",
            f"{_HERE}.richdreamer:LOADER",
            reads_shape=True,
        ),
        TeacherSpec(
            "sd", "Stable Diffusion (base model)", "Stable Diffusion", f"{_HERE}.stable_diffusion:LOADER"
        ),
    )
}
