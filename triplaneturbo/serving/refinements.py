"""The refinements of an engine: one at a time, with progress, previews and an early stop."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.domains.domain import Domain
from triplaneturbo.errors import Cancelled, EmptySurfaceError, UserError
from triplaneturbo.mesh.finish import mesh_of_field
from triplaneturbo.mesh.frame import Frame
from triplaneturbo.mesh.io import encode
from triplaneturbo.pipeline import Outcome, Progress, Result
from triplaneturbo.refine.given_image import UPLOAD_MOST_PIXELS, GivenImage, read_given_image
from triplaneturbo.refine.options import OUT_OF_MEMORY, RefineOptions
from triplaneturbo.representations.triplane_asset import TriplaneAsset
from triplaneturbo.serving.refine_request import PICTURE, PICTURE_SUFFIXES, RefineRequest, rounded
from triplaneturbo.utils.devices import explained_out_of_memory
from triplaneturbo.utils.lru_cache import LRUCache

if TYPE_CHECKING:
    from triplaneturbo.distill.ptd import Refiner
    from triplaneturbo.mesh.mesh import Mesh
    from triplaneturbo.refine.given_mesh import GivenMesh
    from triplaneturbo.serving.device_worker import DeviceWorker
    from triplaneturbo.serving.job_queue import Job

PREVIEW_INTERVAL = 8.0  # seconds between two previews, which delay the refinement
PREVIEW_RESOLUTION = 64
KEPT_UPLOADS = 4
# Shares of the progress bar at which the steps, the extraction of the mesh and its files begin.
_STEPS_AT, _MESH_AT, _FILES_AT = 0.05, 0.9, 0.97


@dataclass
class _Active:
    """The current refinement.

    Attributes:
        stop: set to end it early.
        job: its job; None until it is in the queue.
        source: the uploaded mesh or picture that it refines or is refined toward; None: there is none.
        running: whether it has started.
        seconds_left: estimate of the remaining seconds; None if unknown.
    """

    stop: threading.Event
    job: Job | None = None
    source: GivenMesh | GivenImage | None = None
    running: bool = False
    seconds_left: float | None = None


class Refinements:
    """The refinements of one model. All methods are thread-safe.

    Args:
        domain: the domain of the model, with the durations to assume before any refinement was measured.
        name: the model's name in messages.
    """

    def __init__(self, domain: Domain, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._active: _Active | None = None
        self._uploads: LRUCache[GivenMesh | GivenImage] = LRUCache(KEPT_UPLOADS)
        self._owners: dict[str, set[str]] = {}  # by digest, since two pages may upload the same file
        # Before the first step, and per step.
        self._seconds = domain.refine_seconds

    def submit(self, submit: Callable[[threading.Event], Job], upload: str = "") -> Job:
        """Submit a refinement unless there is one already.

        Args:
            submit: submits the job; setting the event ends it early, with the result so far.
            upload: the `upload` of the request, which stays in memory until the job ends.

        Raises:
            UserError: another refinement waits or runs.
        """
        with self._lock:
            if self._current() is not None:
                left = self._seconds_left()
                when = "when it has ended" if left is None else f"in about {rounded(left)} s"
                raise UserError(f"Another result is being refined, one at a time; try again {when}.")
            self._active = _Active(threading.Event(), source=self._uploads.get(upload))
            try:
                self._active.job = submit(self._active.stop)
            except BaseException:
                self._active = None
                raise
            return self._active.job

    def store_upload(self, path: Path, owner: str = "") -> str:
        """Read an uploaded mesh or picture and keep it in memory until all of its owners drop it.

        Only the last few are kept, apart from that of a refinement that waits or runs.

        Args:
            path: the file.
            owner: who uploads it, such as a session.

        Returns:
            The `upload` of requests that refine it.

        Raises:
            UserError: it is broken, too large, or refers to other files.
        """
        # Imported when used: trimesh would slow down the start of the engine.
        from triplaneturbo.refine.given_mesh import read_uploaded_mesh

        picture = path.suffix.lower() in PICTURE_SUFFIXES
        source = read_given_image(path, UPLOAD_MOST_PIXELS) if picture else read_uploaded_mesh(path)
        with self._lock:
            self._owners.setdefault(source.digest, set()).add(owner)
            self._uploads.put(source.digest, source)
        return source.digest

    def drop_upload(self, upload: str, owner: str = "") -> None:
        """Forget an upload unless it has another owner; one that is being refined, once its job ends."""
        with self._lock:
            owners = self._owners.get(upload, set())
            owners.discard(owner)
            if not owners:
                self._owners.pop(upload, None)
                self._uploads.drop(upload)

    def uploaded(self, upload: str) -> GivenMesh | GivenImage:
        """Return an uploaded mesh or picture.

        Raises:
            UserError: it is no longer in memory.
        """
        source = self._uploads.get(upload)
        if source is None:
            raise UserError("The uploaded file is no longer in memory; upload it again.")
        return source

    def uploaded_mesh(self, upload: str) -> Mesh | None:
        """Return an uploaded mesh, fitted to model space; None for a picture, and for "".

        Raises:
            UserError: it is no longer in memory.
        """
        source = self.uploaded(upload) if upload else None
        if source is None or isinstance(source, GivenImage):
            return None
        mesh = source.mesh
        return mesh.replace(vertices=Frame.of(mesh).fit(mesh.vertices))

    def estimate(self, steps: int) -> float | None:
        """Return the seconds that this many steps take; None if that is not known yet."""
        return None if self._seconds is None else self._seconds[0] + steps * self._seconds[1]

    def seconds_left(self) -> float | None:
        """Return the remaining seconds of the refinement that runs; None if none does, or if unknown."""
        with self._lock:
            return self._seconds_left()

    def running(self) -> bool:
        """Whether a refinement runs, so that the jobs behind it wait longer than usual."""
        with self._lock:
            active = self._current()
            return active is not None and active.running

    def work(self, worker: DeviceWorker, request: RefineRequest) -> Generator[Progress | Outcome, None, None]:
        """Generate the draft, refine it, and yield its mesh after the progress events.

        Raises:
            Cancelled: it was stopped before its first step.
            UserError: the prompt or the model cannot be refined, or memory is too short.
        """
        active = self._active
        assert active is not None
        active.seconds_left = self.estimate(request.refine_steps)
        active.running = True
        try:
            with tempfile.TemporaryDirectory() as folder, explained_out_of_memory(OUT_OF_MEMORY):
                yield from self._refine(worker, request, active, Path(folder))
        finally:
            with self._lock:
                if self._active is active:
                    self._active = None  # its job holds the result
                if active.source is not None and active.source.digest in self._owners:
                    self._uploads.put(active.source.digest, active.source)  # for the comparison

    def _refine(
        self, worker: DeviceWorker, request: RefineRequest, active: _Active, folder: Path
    ) -> Generator[Progress | Outcome, None, None]:
        from triplaneturbo.refine.memory_plan import DoesNotFitError
        from triplaneturbo.refine.start import start

        clock = _Clock(request.refine_steps)
        yield clock.progress("prepare", 0.0)
        options = RefineOptions(steps=request.refine_steps, seed=request.seed)
        model, source, image = worker.pipeline.model, None, None
        given = active.source or (self.uploaded(request.upload) if request.upload else None)
        if isinstance(given, GivenImage):
            image = given
            if request.prompt == PICTURE:
                from triplaneturbo.refine.image_source import prompt_of

                request = replace(request, prompt=prompt_of(model, self._name, image))
        else:
            source = given
        stages = start(model, self._name, source or worker.field(request), request, options, folder, image)
        while not active.stop.is_set():
            yield clock.progress("prepare", _STEPS_AT / 2)
            try:
                next(stages)
            except StopIteration as end:
                refiner: Refiner = end.value
                break
            except DoesNotFitError as error:  # visitors cannot change the options that it names
                raise UserError(f"{error.shortage}: {error.device}, or the small model.") from None
        else:
            raise Cancelled
        reason = yield from self._optimize(refiner, request, active, clock)
        if not refiner.finished:
            request = replace(request, stopped_after=refiner.steps, stop_reason=reason)
        asset = refiner.representation
        assert isinstance(asset, TriplaneAsset)
        for event in worker.pipeline.stream_mesh(asset.field(), request):
            if isinstance(event, Progress):
                share = _MESH_AT + (_FILES_AT - _MESH_AT) * event.fraction
                yield clock.progress(event.stage, share, refiner.steps)
            elif isinstance(event, Result):
                yield replace(event, seconds=clock.seconds(event.seconds))
            else:
                yield event

    def _optimize(
        self, refiner: Refiner, request: RefineRequest, active: _Active, clock: _Clock
    ) -> Generator[Progress, None, str]:
        """Do the steps until the end or the stop; yield an event after each, some with a preview.

        Returns:
            Why it ended early, if it was not stopped by the user; otherwise "".
        """
        clock.begin("refine")
        previewed = begun = first_step_at = time.perf_counter()
        while not refiner.finished and not active.stop.is_set():
            try:
                refiner.step()
            except UserError as error:
                if not refiner.steps:
                    raise
                return str(error)
            now, done = time.perf_counter(), refiner.steps
            share = _STEPS_AT + (_MESH_AT - _STEPS_AT) * refiner.iteration / refiner.iterations
            if not done:
                first_step_at = now
                yield clock.progress("path", share, refiner.iteration, refiner.path_iterations)
                continue
            active.seconds_left = (now - first_step_at) / done * (request.refine_steps - done)
            event = clock.progress("refine", share, done)
            if now - previewed >= PREVIEW_INTERVAL and not refiner.finished:
                asset = refiner.representation
                assert isinstance(asset, TriplaneAsset)
                event = _with_preview(event, asset, request)
                previewed = time.perf_counter()
            yield event
        if not refiner.steps:
            raise Cancelled
        setup = clock.before("refine") + first_step_at - begun
        self._seconds = setup, (time.perf_counter() - first_step_at) / refiner.steps
        return ""

    def _current(self) -> _Active | None:
        """Return the refinement that waits or runs; the caller must hold the lock."""
        active = self._active
        return None if active is None or active.job is None or active.job.done else active

    def _seconds_left(self) -> float | None:
        active = self._current()
        return None if active is None else active.seconds_left


class _Clock:
    """Measure a refinement and create its progress events."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._started = self._stage_started = time.perf_counter()
        self._stage, self._seconds = "prepare", dict[str, float]()

    def begin(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[self._stage] = now - self._stage_started
        self._stage, self._stage_started = stage, now

    def before(self, stage: str) -> float:
        """Return the seconds of all stages that ended before `stage` began."""
        return sum(taken for name, taken in self._seconds.items() if name != stage)

    def progress(self, stage: str, share: float, step: int = 0, steps: int | None = None) -> Progress:
        return Progress(stage, share, time.perf_counter() - self._started, step, steps or self._steps)

    def seconds(self, of_mesh: dict[str, float]) -> dict[str, float]:
        """Return the seconds of all stages, including those of the mesh, and "total"."""
        total = time.perf_counter() - self._started
        stages = {name: taken for name, taken in of_mesh.items() if name != "total"}
        before = {**self._seconds, self._stage: total - sum(self._seconds.values()) - sum(stages.values())}
        return {**before, **stages, "total": total}


def _with_preview(event: Progress, asset: TriplaneAsset, request: RefineRequest) -> Progress:
    """Add a coarse mesh in model space, with vertex colours, unless there is no surface."""
    resolution = min(request.resolution or PREVIEW_RESOLUTION, PREVIEW_RESOLUTION)
    coarse = replace(
        request, resolution=resolution, faces=None, unwrap="none", watertight=False, smoothing=0, lods=1
    )
    try:
        mesh = mesh_of_field(asset.field(), coarse)
    except EmptySurfaceError:
        return event
    return replace(event, sketch=mesh, glb=encode(mesh, "glb"))
