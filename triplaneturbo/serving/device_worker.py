"""A compute device with a copy of the model, driven by one thread of the job queue."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from triplaneturbo.mesh.io import encode
from triplaneturbo.models.adapter_switch import AdapterSwitch
from triplaneturbo.models.weights import Model
from triplaneturbo.pipeline import Outcome, Pipeline, Progress, Sketches
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request
from triplaneturbo.serving.zero_gpu import is_zero_gpu, on_gpu
from triplaneturbo.utils.lru_cache import LRUCache

KEPT_EMBEDDINGS = 64


class DeviceWorker:
    """A device with a copy of the model.

    Args:
        device: the device.
        adapter: returns the path of an adapter's file by name.
    """

    def __init__(self, device: torch.device, adapter: Callable[[str], Path]) -> None:
        self.device = device
        self._adapter = adapter
        self._embeddings: LRUCache[Tensor] = LRUCache(KEPT_EMBEDDINGS)

    def load(self, model: Callable[[], Model], base: Path, low_vram: bool) -> None:
        """Load the model; `base` is the folder of the base weights that adapters are applied to."""
        self.pipeline = Pipeline(model(), low_vram)
        self._switch = AdapterSwitch(self.pipeline.model, base)
        self.stream = on_gpu(self._stream)

    def _stream(
        self, requests: Sequence[Request], low_memory: bool, sketches: Sketches, together: bool
    ) -> Generator[Progress | Outcome, None, None]:
        for name, group in groupby(requests, key=lambda request: request.adapter):
            self._use(name)
            yield from self._stream_with(list(group), low_memory, sketches, together)

    def _stream_with(
        self, requests: Sequence[Request], low_memory: bool, sketches: Sketches, together: bool
    ) -> Generator[Progress | Outcome, None, None]:
        for event in self.pipeline.stream_all(requests, self.embed, low_memory, sketches, together):
            if is_zero_gpu() and isinstance(event, Progress) and event.estimate is not None:
                event = replace(event, estimate=event.estimate.cpu())
            if isinstance(event, Progress) and event.sketch is not None:
                # Encode here: a call from the waiting thread would be served only after the current stage.
                event = replace(event, glb=encode(event.sketch, "glb"))
            yield event

    def field(self, request: Request) -> TriplaneField:
        """Generate the field of a request, without a mesh."""
        self._use(request.adapter)
        return self.pipeline.field(request)

    def _use(self, adapter: str) -> None:
        """Switch the model to an adapter; "" is the model's own."""
        self._switch.use(self._adapter(adapter) if adapter else None)

    def embed(self, prompt: str) -> Tensor:
        """Return the text embedding of a prompt, cached for recent prompts."""
        embeds = self._embeddings.get(prompt)
        if embeds is None:
            embeds = self.pipeline.embed(prompt)
            self._embeddings.put(prompt, embeds)
        return embeds
