"""One loaded model, its device, and the line of requests for it: the only thing that the page talks to.

with Engine("small") as engine:
    print(engine.report())
    ticket = engine.submit(Request("a red mushroom", seed=1))
    for event in ticket.events():
        print(event.stage, event.fraction)
    mesh = ticket.result().mesh
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triplaneturbo import __version__
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.duration import Estimate, estimate
from triplaneturbo.finetune.forecast import Forecast
from triplaneturbo.finetune.run import RUNS, FinetuneConfig
from triplaneturbo.mesh.check import Check, check
from triplaneturbo.mesh.debug_views import VIEWS
from triplaneturbo.mesh.io import AS_MODELLED, Placement, encode
from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import animation, thumbnail, turntable
from triplaneturbo.mesh.warmup import warmup
from triplaneturbo.models.adapter_switch import fits
from triplaneturbo.models.adapters import adapter, adapters
from triplaneturbo.models.catalog import SMALL, ModelFiles, base_or_default, find_model
from triplaneturbo.models.convert import convert_if_needed
from triplaneturbo.models.weights import Model, load_model
from triplaneturbo.pipeline import Outcome, Progress, Result, Sketches
from triplaneturbo.render.rasterizer import rasterizer
from triplaneturbo.request import Request
from triplaneturbo.serving.device_worker import DeviceWorker
from triplaneturbo.serving.job_queue import Job, JobQueue
from triplaneturbo.serving.training_service import RunState, TrainingService
from triplaneturbo.serving.zero_gpu import is_lent
from triplaneturbo.toyworld.captions.advice import misfits, summary
from triplaneturbo.toyworld.captions.caption_parser import Reading
from triplaneturbo.toyworld.captions.captions import vocabulary
from triplaneturbo.utils.devices import (
    attention_name,
    be_deterministic,
    choose_devices,
    choose_precision,
    device_name,
    is_out_of_memory,
)
from triplaneturbo.utils.lru_cache import LRUCache

# A mesh with its textures takes about 10 MB; at the largest texture size some 150.
KEPT_RESULTS = 4
SAVING = 60  # seconds at most, for a run to end its iteration and to save


class Engine:
    """Loads a model once and makes meshes with it, one at a time, in the order in which they are asked for.

    Args:
        model: "auto" (the full model on a CUDA device, otherwise the small one), "small", "full", a folder
            or a hub id.
        device: "cpu", "cuda", ...; several as in "cuda:0,cuda:1" or "all" GPUs, which then work side by side;
            None: the best there is.
        precision: "auto", "float32", "float16" or "bfloat16".
        base: a folder of Stable Diffusion 2.1-base for the full model; None: TRIPLANETURBO_BASE or the hub's.
        low_vram: spare the device's memory where that costs a little time only.
        queue: the most requests that may wait for the one under way; None: any number.
        runs: the folder of fine-tuning runs.

    Attributes:
        model: the loaded model.
        device: where it runs, the first of several.
        dtype: the precision of its U-Net and decoder.
        found: the model's files.
        name: what the model is called.
        notice: one sentence on what the user should know about the model, "" if there is nothing.

    Raises:
        UserError: the model, device or precision is not to be had.
    """

    def __init__(
        self,
        model: str = "auto",
        device: str | None = None,
        precision: str = "auto",
        base: str | None = None,
        low_vram: bool = False,
        queue: int | None = None,
        runs: Path = RUNS,
    ) -> None:
        chosen = choose_devices(device)
        self.device, self._why_device = chosen[0]
        found = find_model(model, self.device.type == "cuda", base_or_default(base))
        if self.device.type == "cuda":
            be_deterministic()
        self._workers = [DeviceWorker(choice.device, self._adapter) for choice in chosen]
        self._results: LRUCache[Result] = LRUCache(KEPT_RESULTS)
        works = [partial(self._work, worker) for worker in self._workers]
        self._line = JobQueue(works, name=f"engine on {self.device.type}", size=queue)
        try:
            try:
                self._load(found, precision, low_vram)
            except UserError as error:
                if model != "auto" or found.folder == SMALL:
                    raise
                found = find_model("small", False)
                found = replace(found, notice=f"{error} The small model is used.")
                self._load(found, precision, low_vram)
        except BaseException:
            self._line.close(0)
            raise
        self.pipeline = self._workers[0].pipeline
        self.model = self.pipeline.model
        self._training = TrainingService(runs, self.found, self._workers[-1].device, self._line.wake)
        self._forecast = Forecast(self.found, self._workers[-1].device)
        self._line.when_idle(self._training)
        self.notice = " ".join(filter(None, (found.notice, "" if self.model.trained else _UNTRAINED)))

    @property
    def trained(self) -> bool:
        """Whether the model's weights were trained; otherwise they were drawn at random."""
        return self.model.trained

    @property
    def words(self) -> dict[str, list[str]] | None:
        """All words that a model of the world knows, by kind; None where the model reads any words."""
        return vocabulary() if self.model.config.world else None

    def read(self, prompt: str) -> Reading | None:
        """What a model of the world makes of a prompt, at once; None where the model reads any words."""
        return self.pipeline.read(prompt)

    def submit(self, *requests: Request, sketches: Sketches = "none") -> Job:
        """Put a request in the line, or several as one, which a GPU makes together.

        Args:
            sketches: which steps of a single request are shown as a coarse mesh; see `Progress.sketch`.

        Raises:
            UserError: a value of a request cannot be.
            QueueFullError: too many requests wait already.
        """
        settled = [self.pipeline.settle(request) for request in requests]
        for name in {request.adapter for request in settled if request.adapter}:
            self._adapter(name)
        return self._line.join(*settled, sketches=sketches)

    def adapters(self) -> list[str]:
        """The names of the library's adapters that were made for this model."""
        if not self.trained:
            return []
        return [name for name, path in adapters().items() if fits(self.model, path)]

    def learning(self) -> str:
        """The name of an adapter that can be chosen as it is now, since a run learns it; "" if none is."""
        state = self._training.state()
        return state.order.name if state is not None and state.learning and not state.kept else ""

    def begin_run(self, order: FinetuneConfig) -> None:
        """Begin to fine-tune, an iteration at a time while no request waits.

        Raises:
            UserError: the order cannot be, a prompt is beyond the model's world, or another run is under way.
        """
        if is_lent():
            raise UserError("Here a GPU is lent for one mesh at a time: fine-tune on a machine of your own.")
        wrong = misfits(order.prompts + order.held_out) if self.model.config.world else ()
        if wrong:
            raise UserError(f"This model does not know {', '.join(map(repr, wrong))}: leave them out.")
        self._training.begin(order)

    def estimate_run(self, order: FinetuneConfig) -> Estimate:
        """What a run of that order will take, as far as it is known by now."""
        if not self.model.config.world:
            return self._forecast.of(order)
        return estimate(order, world=True, steps=self.model.config.steps)

    def pause_run(self) -> None:
        """Save the run and give its memory back; `resume_run` goes on."""
        self._training.pause()

    def resume_run(self) -> None:
        """Go on with a run. UserError if there is none that can be gone on with."""
        self._training.resume()

    def stop_run(self, keep: bool) -> None:
        """End the run: its adapter goes into the library, or all of it goes. UserError if there is none."""
        self._training.stop(keep)

    def choose_run(self, name: str) -> None:
        """Take up another run of those on disk. UserError if one is under way, or it is gone."""
        self._training.choose(name)

    def run_names(self) -> list[str]:
        """The names of all runs on disk, the newest first."""
        return self._training.names()

    def run_state(self) -> RunState | None:
        """Where the run stands; None where there is none."""
        return self._training.state()

    def generate(self, prompt: str, **settings: Any) -> Result:
        """Put a request in the line and wait for its result; `settings` are Request's."""
        return self.submit(Request(prompt, **settings)).result()

    def encode(
        self, mesh: Mesh, format: str, name: str = "mesh", placement: Placement = AS_MODELLED
    ) -> bytes:
        """The mesh as the bytes of a file, made in the engine's thread; see mesh.formats.encode."""
        return self._line.call(lambda: encode(mesh, format, name, placement))

    def thumbnail(self, mesh: Mesh, size: int = 192) -> bytes:
        """A picture of the mesh on a transparent ground, a PNG of `size` pixels a side."""
        return self._line.call(lambda: encode_image(thumbnail(mesh, size, None), "png"))

    def turntable(self, mesh: Mesh, size: int = 144, frames: int = 16) -> bytes:
        """The mesh turning once around, an animated WebP of `size` pixels a side, transparent around it."""
        return self._line.call(lambda: animation(turntable(mesh, frames, size, None)))

    def pictures(self, mesh: Mesh, size: int = 512) -> dict[str, bytes]:
        """How a textured mesh is made, as PNG files: "wireframe", "normals", "atlas", "texture"."""
        return {
            name: self._line.call(partial(_picture, draw, mesh, size))
            for name, draw in VIEWS.items()
            if mesh.uv is not None or name not in ("atlas", "texture")
        }

    def check(self, mesh: Mesh, placement: Placement = AS_MODELLED) -> Check:
        """Whether the mesh is a solid that can be printed, and what else there is to say of it."""
        return self._line.call(lambda: check(mesh, placement))

    def warmup(self) -> None:
        """Have everything compiled that is compiled at its first use."""
        self._line.call(warmup)

    def report(self) -> str:
        """What this engine runs on and with, and why: one block of text."""
        config = self.model.config
        devices = ", ".join(device_name(worker.device) for worker in self._workers)
        rows = {
            "triplaneturbo": f"{__version__}, torch {torch.__version__}",
            "device": f"{devices}: {self._why_device}",
            "precision": f"{str(self.dtype).removeprefix('torch.')}: {self._why_precision}",
            "attention": attention_name(self.device),
            "rasteriser": _rasteriser(self.device),
            "model": f"{self.name}{'' if self.trained else ' (untrained)'}: {self._why_model}",
            "files": str(self.model.folder),
            "sizes": f"{config.steps} steps, grid {config.grid_resolution}^3",
        }
        if config.world:
            rows["words"] = f"{summary()}, and no others"
        return "\n".join(f"{name:14} {value}" for name, value in rows.items())

    def close(self, timeout: float | None = 5) -> bool:
        """Cancel everything and stop; True if the worker ended within `timeout` seconds."""
        return self._line.close(timeout)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An interrupt is not to wait for a step to end: the worker's thread ends with the process. But what a
        # run has learned since its last checkpoint is worth it.
        state = self._training.state()
        waits = 0 if kind is KeyboardInterrupt else 5
        self.close(SAVING if state is not None and state.active else waits)

    def _load(self, found: ModelFiles, precision: str, low_vram: bool) -> None:
        """Load a model on all devices."""
        self.found = found
        self.dtype, self._why_precision = choose_precision(precision, self.device, found.small)
        self.name, self._why_model = found.name, found.why
        try:
            for number, worker in enumerate(self._workers):
                model = partial(_load, found, worker.device, self.dtype)
                load = partial(worker.load, model, found.base or found.folder, low_vram)
                load() if is_lent() else self._line.call(load, number)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"Out of memory while loading {found.name} on {self.device}; close other programs or use the"
                " small model."
            ) from None

    def _adapter(self, name: str) -> Path:
        """The file of the adapter called `name`: of the run that learns it, or of the library."""
        return self._training.adapter(name) or adapter(name)

    def _mark(self, request: Request) -> tuple[Request, int]:
        """What a result is remembered by: the request, and the state of its adapter's file."""
        return request, self._adapter(request.adapter).stat().st_mtime_ns if request.adapter else 0

    def _work(
        self, worker: DeviceWorker, requests: Sequence[Request], sketches: Sketches
    ) -> Generator[Progress | Outcome, None, None]:
        """What each request comes to, made now or before, in their order."""
        outcomes: dict[Request, Outcome] = {}
        for request in requests:
            kept = self._results.get(self._mark(request))
            if kept is not None:
                outcomes[request] = replace(kept, cached=True)
        missing = [request for request in dict.fromkeys(requests) if request not in outcomes]
        told = 0
        work = self._make(worker, missing, sketches)
        for asked in requests:
            while asked not in outcomes:
                event = next(work)
                if isinstance(event, Progress):
                    yield event
                else:
                    outcomes[missing[told]] = event
                    told += 1
            yield outcomes[asked]

    def _make(
        self, worker: DeviceWorker, requests: Sequence[Request], sketches: Sketches
    ) -> Generator[Progress | Outcome, None, None]:
        """Make requests; where memory is short, what is missing one by one, and then more frugally."""
        marks = [self._mark(request) for request in requests]
        made = 0
        several = len(requests) > 1 and worker.pipeline.together
        for together, frugal in ((True, False), (False, False), (False, True)):
            if together and not several:
                continue
            try:
                for event in worker.stream(requests[made:], frugal, sketches, together):
                    if not isinstance(event, Progress):
                        # Rounding in a batch depends on what else is in it: alone it has to be the same.
                        if isinstance(event, Result) and not frugal and not together:
                            self._results.put(marks[made], event)
                        made += 1
                    yield event
                return
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            gc.collect()  # outside of the handler: there the error still held on to the memory
            if worker.device.type == "cuda":
                torch.cuda.empty_cache()
        request = requests[made]
        raise UserError(
            f"Out of memory on {worker.device} at resolution {request.resolution}, even with a texture of"
            f" half {request.texture_size}; {_what_fits(request, worker.device)}."
        )


def _what_fits(request: Request, device: torch.device) -> str:
    """What to ask for where memory was too short for a request."""
    free = f" ({torch.cuda.mem_get_info(device)[0] / 1e9:.1f} GB are free)" if device.type == "cuda" else ""
    if (request.resolution or 0) > 96:
        return f"try a resolution of 96{free}, or use the small model"
    return f"close other programs{free}, or use the small model"


_UNTRAINED = "This model is untrained: it makes shapes, but not yet what the prompt says."


def _picture(draw: Callable[..., np.ndarray], mesh: Mesh, size: int) -> bytes:
    return encode_image(draw(mesh, size), "png")


def _load(found: ModelFiles, device: torch.device, dtype: torch.dtype) -> Model:
    convert_if_needed(found)
    return load_model(found.folder, base=found.base, device=device, dtype=dtype)


def _rasteriser(device: torch.device) -> str:
    name = rasterizer(device)
    if device.type == "cuda" and name != "nvdiffrast":
        return f"{name} on the CPU: nvdiffrast is not installed (it is optional, see requirements-cuda.txt)"
    return f"{name}: on {device.type}"
