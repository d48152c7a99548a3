"""The phases between meshes and scores: views and embeddings, each kept by a hash of its inputs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.evaluate.judges import Judge, JudgeFiles
from triplaneturbo.evaluate.methods import MeshRecord
from triplaneturbo.evaluate.protocols import Protocol
from triplaneturbo.evaluate.store import Store, digest
from triplaneturbo.evaluate.views import (
    RENDERER,
    blank_views,
    decode_views,
    encode_views,
    on_background,
    render_views,
)
from triplaneturbo.mesh.io.reader import load_mesh


class Views:
    """The views of meshes, in `folder`.

    Args:
        folder: the folder.
        protocol: its `views` are rendered.
    """

    def __init__(self, folder: Path, protocol: Protocol) -> None:
        self._settings = protocol.views
        self._images = Store(folder, ".png")
        self._empty = Store(folder, ".empty")  # marks a mesh without faces

    def key(self, mesh: MeshRecord) -> str:
        """Return the key of a mesh's views; all empty results share one."""
        return digest(mesh=mesh.sha256, views=asdict(self._settings), renderer=RENDERER)

    def is_empty(self, mesh: MeshRecord) -> bool:
        """Return whether the views are blank, as the mesh is missing or has no faces."""
        return mesh.path is None or self._empty.has(self.key(mesh))

    def has(self, mesh: MeshRecord) -> bool:
        """Return whether the views are finished."""
        return self.is_empty(mesh) or self._images.has(self.key(mesh))

    def make(self, mesh: MeshRecord) -> None:
        """Render and store the views of a mesh.

        Raises:
            UserError: the mesh cannot be read, or the views cannot be written.
        """
        assert mesh.path is not None
        loaded = load_mesh(mesh.path)
        if loaded is None:
            self._empty.write(self.key(mesh), b"")
        else:
            self._images.write(self.key(mesh), encode_views(render_views(loaded, self._settings)))

    def read(self, mesh: MeshRecord) -> np.ndarray:
        """Return finished views, uint8 [V, size, size, 4]; those of an empty result are transparent."""
        if self.is_empty(mesh):
            return blank_views(self._settings)
        key = self.key(mesh)
        return decode_views(self._images.read(key), self._images.path(key))


class Embeddings:
    """The embeddings of views and prompts by one judge, in `folder`.

    Args:
        folder: the folder, which other judges share.
        files: the judge.
        protocol: gives the background and the prefix of prompts, unless the judge has its own.
        views: the views.
        device: device of the judge.
    """

    def __init__(
        self, folder: Path, files: JudgeFiles, protocol: Protocol, views: Views, device: torch.device
    ) -> None:
        self.files = files
        self.background = files.background or protocol.background
        self.prefix = protocol.prefix if files.takes_prefix else ""
        self._store = Store(folder, ".npy")
        self._views = views
        self._device = device
        self._judge: Judge | None = None

    def has(self, mesh: MeshRecord) -> bool:
        """Return whether the embeddings of a mesh's views are finished."""
        return self._store.has(self._key(mesh))

    def make(self, mesh: MeshRecord) -> None:
        """Embed and store the views of a mesh; the judge is loaded on first use.

        Raises:
            UserError: the judge is invalid, or the embeddings cannot be written.
        """
        images = on_background(self._views.read(mesh), self.background)
        self._write(self._key(mesh), self._loaded().embed_images(images))

    def read(self, mesh: MeshRecord) -> Tensor:
        """Return the unit embeddings of a mesh's views [V, E]."""
        return self._read(self._key(mesh))

    def gallery(self, prompts: Sequence[str]) -> Tensor:
        """Return the unit embeddings of all prompts [M, E], which are computed once."""
        key = digest(judge=self.files.key, prefix=self.prefix, prompts=list(prompts))
        if not self._store.has(key):
            self._write(key, self._loaded().embed_texts([self.prefix + prompt for prompt in prompts]))
        return self._read(key)

    def unload(self) -> None:
        """Free the judge's memory."""
        self._judge = None

    def _key(self, mesh: MeshRecord) -> str:
        # Empty results have the same views, whether the mesh is missing or has no faces.
        views = "blank" if self._views.is_empty(mesh) else self._views.key(mesh)
        return digest(judge=self.files.key, views=views, background=self.background)

    def _loaded(self) -> Judge:
        self._judge = self._judge or self.files.load(self._device)
        return self._judge

    def _write(self, key: str, embeds: Tensor) -> None:
        buffer = io.BytesIO()
        np.save(buffer, embeds.numpy())
        self._store.write(key, buffer.getvalue())

    def _read(self, key: str) -> Tensor:
        return torch.from_numpy(np.load(io.BytesIO(self._store.read(key)), allow_pickle=False))


def make_missing(phase: Views | Embeddings, meshes: Sequence[MeshRecord]) -> Iterator[None]:
    """Make what a phase lacks of some meshes; yield after each."""
    for mesh in meshes:
        if not phase.has(mesh):
            phase.make(mesh)
        yield
