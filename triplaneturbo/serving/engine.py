"""Inference engine: a loaded model, its devices and the queue of jobs for them. The page talks to this only.

with Engine("small") as engine:
    print(engine.report())
    job = engine.submit(Request("a red mushroom", seed=1))
    for event in job.events():
        print(event.stage, event.fraction)
    mesh = job.result().mesh
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from triplaneturbo import __version__
from triplaneturbo.domains.domain import Domain
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.duration import Estimate
from triplaneturbo.finetune.run import RUNS, FinetuneConfig
from triplaneturbo.mesh.check import Check, check
from triplaneturbo.mesh.debug_views import VIEWS
from triplaneturbo.mesh.io import AS_MODELLED, Placement
from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata
from triplaneturbo.mesh.io.registry import WRITERS, WriteOptions
from triplaneturbo.mesh.io.size_limit import LimitedFile, encode_within
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import animation, thumbnail, thumbnails, turntable
from triplaneturbo.mesh.warmup import warmup
from triplaneturbo.models.adapter_switch import fits
from triplaneturbo.models.adapters import adapter, adapter_steps, adapters
from triplaneturbo.models.catalog import SMALL, ModelFiles, base_or_default, find_model
from triplaneturbo.models.convert import convert_if_needed
from triplaneturbo.models.weights import Model, load_model
from triplaneturbo.pipeline import Outcome, Progress, Result, Sketches
from triplaneturbo.render.rasterizer import rasterizer
from triplaneturbo.request import Request
from triplaneturbo.serving.device_worker import DeviceWorker
from triplaneturbo.serving.file_options import DEFAULT_FILES, FileOptions
from triplaneturbo.serving.job_queue import Job, JobQueue
from triplaneturbo.serving.refine_request import RefineRequest
from triplaneturbo.serving.refinements import Refinements
from triplaneturbo.serving.training_service import RunState, TrainingService
from triplaneturbo.serving.zero_gpu import is_zero_gpu
from triplaneturbo.utils.cpu_load import CpuLoad
from triplaneturbo.utils.devices import (
    attention_name,
    be_deterministic,
    choose_devices,
    choose_precision,
    device_name,
    is_out_of_memory,
)
from triplaneturbo.utils.lru_cache import LRUCache

if TYPE_CHECKING:
    from triplaneturbo.finetune.memory_plan import Forecast

# A mesh with its textures takes about 10 MB; at the largest texture size some 150.
KEPT_RESULTS = 4
SAVE_TIMEOUT = 60  # seconds in which a fine-tuning run must end its iteration and save its state


class Engine:
    """Load a model once and process generation jobs in the order in which they are submitted.

    Each device processes one job at a time. Fine-tuning runs between jobs.

    Args:
        model: "auto" (the full model on a CUDA device, otherwise the small one), "small", "full", a folder
            or a hub id.
        device: "cpu", "cuda", ...; several GPUs as in "cuda:0,cuda:1", or "all", work in parallel; None: the
            best available one.
        precision: "auto", "float32", "float16" or "bfloat16".
        base: a folder with Stable Diffusion 2.1-base for the full model; None: TRIPLANETURBO_BASE or the
            hub's.
        low_vram: reduce the device's peak memory at a small cost in time.
        queue: maximum number of waiting requests; None: unlimited.
        runs: the folder of fine-tuning runs.

    Attributes:
        model: the loaded model.
        device: its device, the first one of several.
        dtype: the precision of its U-Net and decoder.
        found: the model's files.
        name: the model's name.
        refinements: estimates of the durations of refinements, and the state of the current one.
        notice: what the user should know about the model, in one sentence; "" if there is nothing.

    Raises:
        UserError: the model, device or precision is unavailable.
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
        self._cpu_load = CpuLoad()
        chosen = choose_devices(device)
        self.device, self._device_reason = chosen[0]
        found = find_model(model, self.device.type == "cuda", base_or_default(base))
        if self.device.type == "cuda":
            be_deterministic()
        self._workers = [DeviceWorker(choice.device, self._adapter) for choice in chosen]
        self._results: LRUCache[Result] = LRUCache(KEPT_RESULTS)
        works = [partial(self._work, worker) for worker in self._workers]
        self._queue = JobQueue(works, name=f"engine on {self.device.type}", size=queue)
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
            self._queue.close(0)
            raise
        self.pipeline = self._workers[0].pipeline
        self.model = self.pipeline.model
        self.refinements = Refinements(self.domain, self.name)
        self._training = TrainingService(runs, self.found, self._workers[-1].device, self._queue.wake)
        self._queue.set_idle_task(self._training)
        self.notice = " ".join(filter(None, (found.notice, "" if self.model.trained else _UNTRAINED)))

    @property
    def trained(self) -> bool:
        """Whether the model's weights are trained; otherwise they are random."""
        return self.model.trained

    @property
    def domain(self) -> Domain:
        """The domain of the model."""
        return self.pipeline.domain

    def submit(self, *requests: Request, sketches: Sketches = "none") -> Job:
        """Submit one request, or several as one job, which a GPU processes as a batch.

        A RefineRequest is a job of its own, and only one is active at a time.

        Args:
            sketches: which denoising steps of a single request are decoded to a coarse mesh; see
                `Progress.sketch`.

        Raises:
            UserError: a value of a request is invalid, or another result is being refined.
            QueueFullError: too many requests wait already.
        """
        settled = [self._settle(request) for request in requests]
        if not any(isinstance(request, RefineRequest) for request in settled):
            return self._queue.submit(*settled, sketches=sketches)
        if len(settled) > 1:
            raise UserError("Results are refined one by one; send one request at a time.")
        if is_zero_gpu():
            raise UserError(
                "Refining is unavailable on ZeroGPU, which provides a GPU for one mesh at a time; use your"
                " own machine."
            )
        (refinement,) = settled
        assert isinstance(refinement, RefineRequest)
        return self.refinements.submit(
            lambda early_end: self._queue.submit(refinement, early_end=early_end), refinement.upload
        )

    def again(self, request: Request) -> Result:
        """Return the result of an earlier request: cached or generated again. A refinement is not repeated.

        Raises:
            UserError: it is a refinement that is no longer cached.
        """
        if isinstance(request, RefineRequest):
            cached = self._results.get(self._cache_key(request))
            if cached is None:
                raise UserError("This refined result is no longer in memory; refine it again.")
            return cached
        return self.submit(request).result()

    def adapters(self) -> list[str]:
        """Return the names of the installed adapters that fit this model."""
        if not self.trained:
            return []
        return [name for name, path in adapters().items() if fits(self.model, path)]

    def default_steps(self, adapter: str) -> int:
        """Return the number of denoising steps of requests that give none, with an adapter ("": the model's).

        Raises:
            UserError: no adapter has this name, or the number in its file is invalid.
        """
        steps = adapter_steps(self._adapter(adapter)) if adapter else None
        return steps or self.model.config.steps

    def learning(self) -> str:
        """Return the name of the adapter in training whose current state can be used; "" if there is none."""
        state = self._training.state()
        return state.config.name if state is not None and state.learning and not state.kept else ""

    def begin_run(self, config: FinetuneConfig) -> None:
        """Start a fine-tuning run; it advances by one iteration at a time while no job waits.

        Raises:
            UserError: the configuration is invalid, the model does not know a word of a prompt, or another
                run is active.
        """
        if is_zero_gpu():
            raise UserError(
                "Fine-tuning is unavailable on ZeroGPU, which provides a GPU for one mesh at a time; use your"
                " own machine."
            )
        vocabulary = self.domain.vocabulary
        wrong = vocabulary.misfits(config.prompts + config.held_out) if vocabulary is not None else ()
        if wrong:
            raise UserError(
                f"The model cannot express these prompts: {', '.join(map(repr, wrong))}; remove them."
            )
        self._training.begin(config)

    def estimate_run(self, config: FinetuneConfig) -> Estimate:
        """Estimate the duration of a run or, if its domain has a memory plan, its memory."""
        if self._forecast is not None:
            return self._forecast.of(config)
        from triplaneturbo.finetune.domain_training import training_of

        return training_of(self.domain).estimate(config, self.model.config.steps)

    def pause_run(self) -> None:
        """Save the run and free its memory; `resume_run` continues it."""
        self._training.pause()

    def resume_run(self) -> None:
        """Resume the selected run. Raise UserError if there is no resumable run."""
        self._training.resume()

    def stop_run(self, keep: bool) -> None:
        """End the run and keep its adapter, or delete it all. Raise UserError if there is no run."""
        self._training.stop(keep)

    def choose_run(self, name: str) -> None:
        """Select another run on disk. Raise UserError if a run is active or the run no longer exists."""
        self._training.choose(name)

    def run_names(self) -> list[str]:
        """Return the names of all runs on disk, newest first."""
        return self._training.names()

    def run_state(self) -> RunState | None:
        """Return the state of the selected run; None if there is no run."""
        return self._training.state()

    def generate(self, prompt: str, **settings: Any) -> Result:
        """Submit a request and wait for its result; `settings` are the fields of Request."""
        return self.submit(Request(prompt, **settings)).result()

    def encode(
        self, result: Result, format: str, name: str = "mesh", options: FileOptions = DEFAULT_FILES
    ) -> LimitedFile:
        """Encode the mesh of a result as a file, in the engine's thread; see `mesh.io.encode`.

        The file contains the request as metadata if the options say so.
        """
        mesh, writing = result.mesh, self._write_options(result, name, options)
        return self._queue.call(lambda: _encode(mesh, format, writing, options.max_bytes))

    def encode_levels(self, result: Result, options: FileOptions = DEFAULT_FILES) -> list[LimitedFile]:
        """Encode each level of detail of a result as a GLB of its own, with the size and origin of all."""
        mesh = result.mesh
        writing = replace(self._write_options(result, "mesh", options), reference_vertices=mesh.vertices)
        return [
            self._queue.call(partial(_encode, level, "glb", writing, options.max_bytes))
            for level in (mesh.replace(lods=()), *mesh.lods)
        ]

    def _write_options(self, result: Result, name: str, options: FileOptions) -> WriteOptions:
        """Return the options of a file; it contains the request as metadata if the options say so."""
        placement, texture_format = options.placement, options.texture_format
        metadata = (
            GenerationMetadata(result.request, self.name, placement, texture_format, options.max_bytes)
            if options.metadata
            else None
        )
        return WriteOptions(placement, name, texture_format, metadata)

    def thumbnail(self, mesh: Mesh, size: int = 192) -> bytes:
        """Render the mesh on a transparent background: the bytes of a PNG, [size, size] pixels."""
        return self._queue.call(lambda: encode_image(thumbnail(mesh, size, None), "png"))

    def thumbnails(self, meshes: Sequence[Mesh], size: int = 192) -> list[bytes]:
        """Render meshes with one camera that sees all of them, as `thumbnail` does."""
        return self._queue.call(
            lambda: [encode_image(image, "png") for image in thumbnails(meshes, size, None)]
        )

    def turntable(self, mesh: Mesh, size: int = 144, frames: int = 16, seconds: float = 2.4) -> bytes:
        """Render one turn of the mesh: the bytes of an animated, transparent WebP, [size, size] pixels."""
        return self._queue.call(lambda: animation(turntable(mesh, frames, size, None), seconds=seconds))

    def pictures(self, mesh: Mesh, size: int = 512) -> dict[str, bytes]:
        """Render the debug views as PNG bytes: "wireframe", "normals" and, with UVs, "atlas", "texture"."""
        return {
            name: self._queue.call(partial(_render_png, draw, mesh, size))
            for name, draw in VIEWS.items()
            if mesh.uv is not None or name not in ("atlas", "texture")
        }

    def check(self, mesh: Mesh, placement: Placement = AS_MODELLED) -> Check:
        """Check whether the mesh is a printable solid, and report its size and defects."""
        return self._queue.call(lambda: check(mesh, placement))

    def warmup(self) -> None:
        """Compile everything that is otherwise compiled on first use."""
        self._queue.call(warmup)

    def report(self) -> str:
        """Describe the engine's device, precision and model, and why they were chosen, as a text table."""
        config = self.model.config
        devices = ", ".join(device_name(worker.device) for worker in self._workers)
        rows = {
            "triplaneturbo": f"{__version__}, torch {torch.__version__}",
            "device": f"{devices}: {self._device_reason}",
            "precision": f"{str(self.dtype).removeprefix('torch.')}: {self._precision_reason}",
            "attention": attention_name(self.device),
            "rasteriser": _rasteriser(self.device),
            "model": f"{self.name}{'' if self.trained else ' (untrained)'}: {self._model_reason}",
            "files": str(self.model.folder),
            "sizes": f"{config.steps} steps, grid {config.grid_resolution}^3",
        }
        if self.domain.vocabulary is not None:
            rows["words"] = f"{self.domain.vocabulary.summary()}, and no others"
        if load := self._cpu_load.describe():
            rows["load"] = load
        return "\n".join(f"{name:14} {value}" for name, value in rows.items())

    def close(self, timeout: float | None = 5) -> bool:
        """Cancel all jobs and stop the workers; return whether they ended within `timeout` seconds."""
        return self._queue.close(timeout)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An interrupt does not wait for the current step: the worker's thread ends with the process. It does
        # wait for an active run to save what it has learned since its last checkpoint.
        state = self._training.state()
        timeout = 0 if kind is KeyboardInterrupt else 5
        self.close(SAVE_TIMEOUT if state is not None and state.active else timeout)

    def _load(self, found: ModelFiles, precision: str, low_vram: bool) -> None:
        """Load a model on all devices. Raise UserError if memory is insufficient."""
        self.found = found
        self.dtype, self._precision_reason = choose_precision(precision, self.device, found.small)
        self.name, self._model_reason = found.name, found.why
        try:
            for number, worker in enumerate(self._workers):
                model = partial(_load, found, worker.device, self.dtype)
                load = partial(worker.load, model, found.base or found.folder, low_vram)
                load() if is_zero_gpu() else self._queue.call(load, number)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"Out of memory while loading {found.name} on {self.device}; close other programs or use the"
                " small model."
            ) from None

    @cached_property
    def _forecast(self) -> Forecast | None:
        """Forecasts of the memory of runs; None if the domain has no memory plan."""
        from triplaneturbo.finetune.domain_training import training_of
        from triplaneturbo.finetune.memory_plan import Forecast

        plan = training_of(self.domain).plan
        return None if plan is None else Forecast(plan, self.found, self._workers[-1].device)

    def _settle(self, request: Request) -> Request:
        """Validate a request and fill in the defaults of its adapter and of the model."""
        request = request.checked()
        if request.adapter:
            self._adapter(request.adapter)
        if request.steps is None:
            request = replace(request, steps=self.default_steps(request.adapter))
        return self.pipeline.settle(request)

    def _adapter(self, name: str) -> Path:
        """Return an adapter's file: of the run that trains it, otherwise the installed one."""
        return self._training.adapter(name) or adapter(name)

    def _cache_key(self, request: Request) -> tuple[Request, int]:
        """Key of the result cache: the request and the modification time of its adapter."""
        return request, self._adapter(request.adapter).stat().st_mtime_ns if request.adapter else 0

    def _work(
        self, worker: DeviceWorker, requests: Sequence[Request], sketches: Sketches
    ) -> Generator[Progress | Outcome, None, None]:
        """Yield the outcome of each request in order, cached or new, and progress events in between."""
        outcomes: dict[Request, Outcome] = {}
        for request in requests:
            cached = self._results.get(self._cache_key(request))
            if cached is not None:
                outcomes[request] = replace(cached, cached=True)
        missing = [request for request in dict.fromkeys(requests) if request not in outcomes]
        finished = 0
        events = (
            self._refine(worker, missing[0])
            if missing and isinstance(missing[0], RefineRequest)
            else self._generate(worker, missing, sketches)
        )
        for request in requests:
            while request not in outcomes:
                event = next(events)
                if isinstance(event, Progress):
                    yield event
                else:
                    outcomes[missing[finished]] = event
                    finished += 1
            yield outcomes[request]

    def _refine(
        self, worker: DeviceWorker, request: RefineRequest
    ) -> Generator[Progress | Outcome, None, None]:
        """Refine the draft of a request; a result is cached, also one that was stopped early."""
        _, version = self._cache_key(request)
        for event in self.refinements.work(worker, request):
            if isinstance(event, Result):
                self._results.put((event.request, version), event)
            yield event

    def _generate(
        self, worker: DeviceWorker, requests: Sequence[Request], sketches: Sketches
    ) -> Generator[Progress | Outcome, None, None]:
        """Process requests; when out of memory, the remaining ones one by one, then in low-memory mode."""
        keys = [self._cache_key(request) for request in requests]
        finished = 0
        batched = len(requests) > 1 and worker.pipeline.together
        for together, low_memory in ((True, False), (False, False), (False, True)):
            if together and not batched:
                continue
            try:
                for event in worker.stream(requests[finished:], low_memory, sketches, together):
                    if not isinstance(event, Progress):
                        # Rounding depends on the batch; a single request must always give the same bytes.
                        if isinstance(event, Result) and not low_memory and not together:
                            self._results.put(keys[finished], event)
                        finished += 1
                    yield event
                return
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            gc.collect()  # outside the handler, where the error still holds references to tensors
            if worker.device.type == "cuda":
                torch.cuda.empty_cache()
        request = requests[finished]
        raise UserError(
            f"Out of memory on {worker.device} at resolution {request.resolution}, even with a texture of"
            f" half {request.texture_size}; {_memory_advice(request, worker.device)}."
        )


def _memory_advice(request: Request, device: torch.device) -> str:
    """Say what to change after a request ran out of memory."""
    free = f" ({torch.cuda.mem_get_info(device)[0] / 1e9:.1f} GB free)" if device.type == "cuda" else ""
    if (request.resolution or 0) > 96:
        return f"try a resolution of 96{free}, or use the small model"
    return f"close other programs{free}, or use the small model"


_UNTRAINED = "This model is untrained: its shapes do not follow the prompt."


def _encode(mesh: Mesh, format: str, options: WriteOptions, max_bytes: int | None) -> LimitedFile:
    """Encode a mesh; a GLB in at most `max_bytes`."""
    if format == "glb" and max_bytes is not None:
        return encode_within(mesh, format, options, max_bytes)
    return LimitedFile(WRITERS[format].write(mesh, options), "")


def _render_png(draw: Callable[..., np.ndarray], mesh: Mesh, size: int) -> bytes:
    return encode_image(draw(mesh, size), "png")


def _load(found: ModelFiles, device: torch.device, dtype: torch.dtype) -> Model:
    convert_if_needed(found)
    return load_model(found.folder, base=found.base, device=device, dtype=dtype)


def _rasteriser(device: torch.device) -> str:
    name = rasterizer(device)
    if device.type == "cuda" and name != "nvdiffrast":
        return f"{name} on the CPU: nvdiffrast is not installed (it is optional, see requirements-cuda.txt)"
    return f"{name}: on {device.type}"
