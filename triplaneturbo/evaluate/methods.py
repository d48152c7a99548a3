"""Methods: where the meshes of an evaluation come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from triplaneturbo.evaluate.mesh_matching import match_files
from triplaneturbo.evaluate.store import file_digest


@dataclass(frozen=True)
class Item:
    """One object to score.

    Attributes:
        prompt: its prompt.
        index: index of the prompt in the gallery.
        seed: seed of the object; None for a mesh from a file.
    """

    prompt: str
    index: int
    seed: int | None = None


@dataclass(frozen=True)
class MeshRecord:
    """The finished mesh of an item.

    Attributes:
        path: its file; None: the result is empty.
        sha256: hash of the file's content; "" for an empty result.
        seconds: "mesh" and "glb", the time from the text to the mesh and to the bytes of a GLB; empty if
            they were not measured.
        first: whether it was the first mesh of a process, whose time includes one-off work.
        device: name of the device that made it; "" if unknown.
    """

    path: Path | None
    sha256: str = ""
    seconds: dict[str, float] = field(default_factory=dict, hash=False)
    first: bool = False
    device: str = ""


class Method(Protocol):
    """A source of meshes."""

    @property
    def label(self) -> str:
        """Name in tables."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from other methods with the same label, as values of JSON."""

    @property
    def items(self) -> Sequence[Item]:
        """All objects, over all processes."""

    @property
    def missing(self) -> Sequence[str]:
        """Prompts that it has no mesh for."""

    def finished(self, item: Item) -> MeshRecord | None:
        """Return the mesh of an item, or None if it is not made yet."""

    def make(self, items: Sequence[Item]) -> Iterator[None]:
        """Make the meshes of items; yield after each."""


class MeshFolder:
    """Meshes that another program made, by prompt name; see `mesh_matching.match_files`.

    Args:
        folder: the folder.
        prompts: the prompts to score, in the order of the gallery from its start.
        gallery: all prompts.

    Attributes:
        unmatched: files whose name is that of no prompt in the gallery.

    Raises:
        UserError: see `match_files`.
    """

    def __init__(self, folder: Path, prompts: Sequence[str], gallery: Sequence[str]) -> None:
        found, self.unmatched = match_files(folder, gallery)
        index = {prompt: number for number, prompt in enumerate(gallery)}
        self.label = folder.resolve().name
        self.identity = {"folder": str(folder.resolve())}
        self.items = [Item(prompt, index[prompt]) for prompt in prompts if prompt in found]
        self.missing = [prompt for prompt in prompts if prompt not in found]
        self._found = found
        self._made: dict[Item, MeshRecord] = {}

    def finished(self, item: Item) -> MeshRecord:
        """Return the mesh of an item; its content is hashed once per run."""
        if item not in self._made:
            path = self._found[item.prompt]
            self._made[item] = MeshRecord(path, file_digest(path))
        return self._made[item]

    def make(self, items: Sequence[Item]) -> Iterator[None]:
        """Make nothing: all meshes exist."""
        return iter(())
