"""Options of a result's files: where the object is placed, and what the files contain. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from triplaneturbo.mesh.placement import AS_MODELLED, Placement


@dataclass(frozen=True)
class FileOptions:
    """Options of the files of one result.

    Attributes:
        placement: size, up axis, origin and unit of the object in the files.
        metadata: whether the files contain the prompt, seed, settings and model, in formats that can store
            them.
    """

    placement: Placement = AS_MODELLED
    metadata: bool = True


DEFAULT_FILES = FileOptions()
