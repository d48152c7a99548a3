"""Meshes that the pipeline generates, one pass per prompt and seed, with their latency."""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from triplaneturbo import __version__
from triplaneturbo.errors import EmptySurfaceError, UserError
from triplaneturbo.evaluate.methods import Item, MeshRecord
from triplaneturbo.evaluate.store import Store, digest
from triplaneturbo.mesh.io import encode
from triplaneturbo.mesh.warmup import warmup
from triplaneturbo.models.adapter_switch import AdapterSwitch
from triplaneturbo.models.adapters import ADAPTERS, adapter, adapter_digest, adapter_steps
from triplaneturbo.models.catalog import fingerprint
from triplaneturbo.pipeline import Pipeline, Result
from triplaneturbo.request import Request
from triplaneturbo.utils.devices import device_name, is_out_of_memory


@dataclass(frozen=True)
class GenerationSettings:
    """What meshes are generated with.

    Attributes:
        model: name of the model, as `Pipeline.from_pretrained` takes it.
        base: folder of its base; None: the default.
        adapter: name of an adapter; "": the model's own.
        steps: denoising steps; None: the number that the adapter was trained with, or the model's.
        device: name of the requested device; None: the best available one.
        precision: "auto", "float32", "float16" or "bfloat16".
    """

    model: str
    base: str | None = None
    adapter: str = ""
    steps: int | None = None
    device: str | None = None
    precision: str = "auto"

    @property
    def label(self) -> str:
        """Name in tables, with every setting that is not a default."""
        parts = [self.model]
        if self.adapter:
            parts.append(f"adapter {self.adapter}")
        if self.steps is not None:
            parts.append(f"K = {self.steps}")
        if self.base:
            parts.append(f"base {self.base}")
        parts += [value for value in (self.device, self.precision) if value not in (None, "auto")]
        return ", ".join(parts)

    def key(self, library: Path = ADAPTERS) -> str:
        """Return a hash of all that determines a mesh, besides prompt and seed.

        Args:
            library: folder of adapters.

        Raises:
            UserError: the adapter does not exist.
        """
        own = adapter_digest(self.adapter, library) if self.adapter else ""
        return digest(
            version=__version__, weights=fingerprint(self.model), adapter_weights=own, **asdict(self)
        )


class GeneratedMeshes:
    """Meshes of a model as GLB files with a record of each, in `folder`.

    Args:
        settings: what they are generated with.
        items: the objects.
        folder: the folder.
        device: the device of this process; it may differ from the requested one in a group of processes.
        library: folder of adapters.

    Raises:
        UserError: the adapter does not exist, or a setting or the adapter's number of steps is invalid.
    """

    missing: Sequence[str] = ()

    def __init__(
        self,
        settings: GenerationSettings,
        items: Sequence[Item],
        folder: Path,
        device: str | None,
        library: Path = ADAPTERS,
    ) -> None:
        seeds = sorted({item.seed for item in items if item.seed is not None})
        self.label = settings.label + (f", seeds {', '.join(map(str, seeds))}" if seeds != [0] else "")
        self.items = items
        self._settings = settings
        self._device = device
        self._library = library
        self._key = settings.key(library)
        self._steps = settings.steps
        if settings.steps is None and settings.adapter:
            self._steps = adapter_steps(adapter(settings.adapter, library))
        self.identity: dict[str, Any] = {**asdict(settings), "seeds": seeds}
        self._meshes, self._records = Store(folder, ".glb"), Store(folder, ".json")
        if items:
            self._request(items[0]).checked()

    def finished(self, item: Item) -> MeshRecord | None:
        """Return the mesh of an item, or None if it is not made yet."""
        key = self._item_key(item)
        if not self._records.has(key):
            return None
        record = json.loads(self._records.read(key))
        if record["empty"]:
            return MeshRecord(None, device=record["device"])
        if not self._meshes.has(key):
            return None
        return MeshRecord(
            self._meshes.path(key), record["sha256"], record["seconds"], record["first"], record["device"]
        )

    def make(self, items: Sequence[Item]) -> Iterator[None]:
        """Generate the meshes of items; yield after each.

        Raises:
            UserError: the model or adapter is unavailable, they do not fit each other, or memory is
                short.
        """
        settings = self._settings
        pipeline = Pipeline.from_pretrained(
            settings.model, device=self._device, precision=settings.precision, base=settings.base
        )
        model = pipeline.model
        if settings.adapter:
            AdapterSwitch(model, model.base or model.folder).use(adapter(settings.adapter, self._library))
        warmup()
        device = device_name(model.generator.device)
        for number, item in enumerate(items):
            record: dict[str, Any] = {
                "prompt": item.prompt,
                "seed": item.seed,
                "empty": False,
                "device": device,
            }
            key = self._item_key(item)
            try:
                data, seconds = _generate(pipeline, self._request(item))
            except EmptySurfaceError:
                self._records.write(key, _json({**record, "empty": True}))
            else:
                self._meshes.write(key, data)
                record |= {"sha256": hashlib.sha256(data).hexdigest(), "seconds": seconds}
                self._records.write(key, _json({**record, "first": number == 0}))
            yield
        del pipeline, model
        gc.collect()  # the judge may need the memory

    def _request(self, item: Item) -> Request:
        return Request(item.prompt, seed=item.seed or 0, steps=self._steps)

    def _item_key(self, item: Item) -> str:
        return digest(prompt=item.prompt, seed=item.seed, method=self._key)


def _generate(pipeline: Pipeline, request: Request) -> tuple[bytes, dict[str, float]]:
    """Return the bytes of a GLB, and the seconds to the mesh and to these bytes."""
    try:
        for event in pipeline.stream(request):
            if isinstance(event, Result):
                result = event
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"Out of memory on {pipeline.model.generator.device}; close other programs, or use --device cpu."
            " Finished meshes are kept."
        ) from None
    start = time.perf_counter()
    data = encode(result.mesh, "glb")
    mesh_seconds = result.seconds["total"]
    return data, {"mesh": mesh_seconds, "glb": mesh_seconds + time.perf_counter() - start}


def _json(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()
