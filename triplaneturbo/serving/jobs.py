"""Follow one request of the page: submit it to the engine, report its progress and write its files."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from triplaneturbo.errors import Cancelled, UserError
from triplaneturbo.serving.facts import describe
from triplaneturbo.serving.file_options import DEFAULT_FILES, FileOptions
from triplaneturbo.serving.output_files import FORMATS, safe_name, write
from triplaneturbo.serving.refine_request import rounded

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Result, Sketches
    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.job_queue import Job
    from triplaneturbo.serving.sessions import Session, View

POLL_INTERVAL = 0.3  # seconds between two checks of the position in the queue
# Seconds between two events without a sketch: each costs time in the browser and in the worker.
MIN_EVENT_INTERVAL = 0.2


@dataclass(frozen=True)
class Waiting:
    """The job waits in the queue behind `ahead` others.

    Attributes:
        refining: whether the running job is a refinement, which takes longer than a generation.
        seconds: estimate of the rest of that refinement, rounded; None: unknown.
    """

    ahead: int
    refining: bool = False
    seconds: int | None = None


@dataclass(frozen=True)
class Working:
    """A stage has started or a denoising step has ended; the fields are those of `Progress`.

    Attributes:
        view: the sketch to show, if there is one.
    """

    stage: str
    fraction: float
    seconds: float
    step: int
    steps: int
    view: View | None = None


@dataclass(frozen=True)
class MeshReady:
    """The mesh is generated and some of its files are written; one event per file.

    Attributes:
        request: the request with all defaults filled in.
        files: paths by format, of the files written so far.
        facts: the fields of the command line's --json, with "files" and the seconds taken to write them.
        truncated_text: the end of the prompt that exceeds the text encoder's context and is ignored.
        complete: whether all files are written.
        view: the mesh for the viewer, if it should be shown.
        thumbnail: PNG bytes, with the first file of a mesh that the viewer shows.
    """

    request: Request
    files: dict[str, Path]
    facts: dict[str, Any]
    truncated_text: str = ""
    complete: bool = False
    view: View | None = None
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class Stopped:
    """The request ended without a mesh: `sentence` says why; "" if it was cancelled."""

    sentence: str = field(default="")


Event = Waiting | Working | MeshReady | Stopped
EventT = TypeVar("EventT")


def follow(
    engine: Engine,
    session: Session,
    request: Request,
    alone: bool = True,
    sketches: Sketches = "none",
    formats: Sequence[str] = tuple(FORMATS),
    options: FileOptions = DEFAULT_FILES,
    number: int | None = None,
    patience: float = 0.0,
) -> Generator[Event, None, None]:
    """Generate a mesh for a session and yield its events; the last is Stopped or a complete MeshReady.

    Closing the generator cancels the request.

    Args:
        alone: make this the session's only job: cancel its previous one, and end without a further event
            if a later one starts. The viewer shows the mesh.
        sketches: which denoising steps the viewer shows.
        formats: formats of the files, in the order in which they are written.
        options: placement of the object in the files, and what they contain.
        number: the request's number from `Session.enter`; None: it is the latest.
        patience: seconds to wait for a later request after the first file, before the others are written.
    """

    def work(job: Job) -> Generator[Event, None, None]:
        yield from progress(engine, job, session)
        yield from _write(engine, session, job, alone, formats, options, patience)

    return watched(session, lambda: engine.submit(request, sketches=sketches), work, alone, number)


def watched(
    session: Session,
    submit: Callable[[], Job],
    work: Callable[[Job], Generator[EventT, None, None]],
    alone: bool,
    number: int | None = None,
) -> Generator[EventT | Stopped, None, None]:
    """Yield the events of `work` on a submitted job while the session waits for it; errors become Stopped.

    Closing the generator cancels the job.
    """
    job: Job | None = None
    try:
        with session.busy():
            job = submit()
            if alone and not session.begin(job, number):
                return
            for event in work(job):
                if alone and not session.waits_for(job):
                    return
                yield event
    except Exception as error:
        stopped = _stopped(error)
        if not alone or job is None or session.waits_for(job):
            yield stopped
    finally:
        if job is not None:
            job.cancel()  # no-op once it has ended
            session.forget(job)


def progress(engine: Engine, job: Job, session: Session) -> Generator[Waiting | Working, None, None]:
    """Yield the job's position in the queue, then its stages and steps until it ends."""
    last = None
    while ahead := job.position:
        seconds = engine.refinements.seconds_left()
        refining = engine.refinements.running()
        waiting = Waiting(ahead, refining, rounded(seconds) if refining and seconds is not None else None)
        if waiting != last:
            yield waiting
        last = waiting
        time.sleep(POLL_INTERVAL)
    for event in job.events(MIN_EVENT_INTERVAL):
        view = None
        if event.glb is not None and event.sketch is not None and session.waits_for(job):
            view = session.show(session.sketch(event.glb), len(event.sketch.faces), job)
        yield Working(event.stage, event.fraction, event.seconds, event.step, event.steps, view)


def save(
    engine: Engine,
    session: Session,
    result: Result,
    formats: Sequence[str],
    options: FileOptions = DEFAULT_FILES,
) -> Iterator[MeshReady]:
    """Write the files of a result and yield a MeshReady after each; the last one is complete."""
    name = safe_name(result.request, engine.name)
    stem = session.keep(name if options == DEFAULT_FILES else f"{name}-{_digest(options)}")
    check = engine.check(result.mesh, options.placement)
    facts: dict[str, Any] = describe(result, engine) | {
        "cached": result.cached,
        "unsimplified": result.unsimplified,
        "placement": asdict(options.placement),
        "components": check.components,
        "printable": check.printable,
        "check": check.sentence,
        "files": [],
    }
    files: dict[str, Path] = {}
    started = time.perf_counter()
    for name in formats:
        path = stem.with_name(stem.name + FORMATS[name])
        facts["files"] = [*facts["files"], *write(engine, result, {name: path}, options)]
        taken = round(time.perf_counter() - started, 4)
        total = round(result.seconds["total"] + taken, 4)
        facts["seconds"] = {**facts["seconds"], "files": taken, "total": total}
        files = {**files, name: path}
        complete = name == formats[-1]
        yield MeshReady(result.request, files, dict(facts), result.truncated_text, complete=complete)


def _write(
    engine: Engine,
    session: Session,
    job: Job,
    alone: bool,
    formats: Sequence[str],
    options: FileOptions,
    patience: float,
) -> Generator[Event, None, None]:
    result = job.result()
    steps = result.request.steps or 0
    yield Working("files", 0.97, result.seconds["total"], steps, steps)
    for made in save(engine, session, result, formats, options):
        if alone and len(made.files) == 1:
            faces, placed = len(result.mesh.faces), options.placement.size is not None
            made = replace(
                made,
                view=session.show(made.files["glb"], faces, job, placed),
                thumbnail=engine.thumbnail(result.mesh),
            )
        yield made
        deadline = time.monotonic() + (patience if len(made.files) == 1 else 0)
        while time.monotonic() < deadline:
            if not session.waits_for(job):
                return
            time.sleep(0.05)


def _digest(options: FileOptions) -> str:
    """A short hash that distinguishes file options in file names."""
    return hashlib.sha256(repr(options).encode()).hexdigest()[:6]


def _stopped(error: Exception) -> Stopped:
    """Turn an error into an event; print the traceback of a bug."""
    if isinstance(error, Cancelled):
        return Stopped()
    if isinstance(error, UserError):
        return Stopped(str(error))
    traceback.print_exception(error)
    return Stopped(f"Internal error ({type(error).__name__}); see the server's terminal for details.")
