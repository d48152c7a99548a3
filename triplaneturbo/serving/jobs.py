"""One request from the page: handed to the engine, followed to its end, its files written."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from triplaneturbo.errors import Cancelled, UserError
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.serving.facts import describe
from triplaneturbo.serving.output_files import FORMATS, safe_name, write

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Result, Sketches
    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.job_queue import Job
    from triplaneturbo.serving.sessions import Session, View

WAIT = 0.3  # seconds between two looks at a place in the line
REST = 0.2  # seconds between two events without a sketch: each costs the page, and what works, some time


@dataclass(frozen=True)
class Waiting:
    """In the line, behind `ahead` other requests."""

    ahead: int


@dataclass(frozen=True)
class Working:
    """A stage has begun, or a denoising step has ended; as Progress tells it.

    Attributes:
        view: of the sketch, where there is one to be shown.
    """

    stage: str
    fraction: float
    seconds: float
    step: int
    steps: int
    view: View | None = None


@dataclass(frozen=True)
class MeshReady:
    """The mesh is made and `files` (by format) are written; more may follow.

    Attributes:
        request: as it was carried out.
        files: by format, with what is there already.
        facts: as the command line's --json tells them, with "files" and the seconds of writing them.
        unread: the end of the prompt that the model does not read.
        complete: whether all files are there.
        view: of this mesh, where the viewer is to show it.
        thumbnail: a PNG, with the first file of a mesh that was made for the page.
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
    """There is no mesh: `sentence` says why, "" if it was cancelled."""

    sentence: str = field(default="")


Event = Waiting | Working | MeshReady | Stopped
Happening = TypeVar("Happening")


def follow(
    engine: Engine,
    session: Session,
    request: Request,
    alone: bool = True,
    sketches: Sketches = "none",
    formats: Sequence[str] = tuple(FORMATS),
    placement: Placement = AS_MODELLED,
    number: int | None = None,
    patience: float = 0.0,
) -> Generator[Event, None, None]:
    """Make a mesh for a session, telling what happens; ends with Stopped or with a complete Made.

    Closing the generator cancels the request.

    Args:
        alone: the session waits for nothing else: what it waited for before is cancelled, and if something
            else is begun meanwhile, this ends without a word. The viewer shows what is made.
        sketches: which steps the viewer shows.
        formats: of the files, the first one first.
        placement: how the object stands in them.
        number: from `Session.enter`, when it was asked for.
        patience: seconds after the first file in which something else may be begun; then come the others.
    """

    def work(job: Job) -> Generator[Event, None, None]:
        yield from progress(job, session)
        yield from _write(engine, session, job, alone, formats, placement, patience)

    return watched(session, lambda: engine.submit(request, sketches=sketches), work, alone, number)


def watched(
    session: Session,
    submit: Callable[[], Job],
    work: Callable[[Job], Generator[Happening, None, None]],
    alone: bool,
    number: int | None = None,
) -> Generator[Happening | Stopped, None, None]:
    """What happens with a ticket, as long as the session waits for it; errors become Stopped.

    Closing the generator cancels the ticket.
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
            job.cancel()  # of no effect once it has ended
            session.forget(job)


def progress(job: Job, session: Session) -> Generator[Waiting | Working, None, None]:
    """The place in the line, then stages and steps, until the ticket's work ends."""
    ahead = -1
    while job.position:
        if job.position != ahead:
            ahead = job.position or 0
            yield Waiting(ahead)
        time.sleep(WAIT)
    for event in job.events(REST):
        view = None
        if event.glb is not None and event.sketch is not None and session.waits_for(job):
            view = session.show(session.sketch(event.glb), len(event.sketch.faces), job)
        yield Working(event.stage, event.fraction, event.seconds, event.step, event.steps, view)


def save(
    engine: Engine,
    session: Session,
    result: Result,
    formats: Sequence[str],
    placement: Placement = AS_MODELLED,
) -> Iterator[MeshReady]:
    """Write a result's files, one after the other; Made after each, complete after the last."""
    name = safe_name(result.request, engine.name)
    stem = session.keep(name if placement == AS_MODELLED else f"{name}-{_mark(placement)}")
    check = engine.check(result.mesh, placement)
    facts: dict[str, Any] = describe(result, engine) | {
        "cached": result.cached,
        "unsimplified": result.unsimplified,
        "placement": asdict(placement),
        "components": check.components,
        "printable": check.printable,
        "check": check.sentence,
        "files": [],
    }
    files: dict[str, Path] = {}
    since = time.perf_counter()
    for name in formats:
        path = stem.with_name(stem.name + FORMATS[name])
        facts["files"] = [*facts["files"], *write(engine, result.mesh, {name: path}, placement)]
        taken = round(time.perf_counter() - since, 4)
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
    placement: Placement,
    patience: float,
) -> Generator[Event, None, None]:
    result = job.result()
    steps = result.request.steps or 0
    yield Working("files", 0.97, result.seconds["total"], steps, steps)
    for made in save(engine, session, result, formats, placement):
        if alone and len(made.files) == 1:
            faces, placed = len(result.mesh.faces), placement.size is not None
            made = replace(
                made,
                view=session.show(made.files["glb"], faces, job, placed),
                thumbnail=engine.thumbnail(result.mesh),
            )
        yield made
        until = time.monotonic() + (patience if len(made.files) == 1 else 0)
        while time.monotonic() < until:
            if not session.waits_for(job):
                return
            time.sleep(0.05)


def _mark(placement: Placement) -> str:
    """A few digits that tell one placement from another."""
    return hashlib.sha256(repr(placement).encode()).hexdigest()[:6]


def _stopped(error: Exception) -> Stopped:
    """What to tell of an error; what is a bug goes to the terminal."""
    if isinstance(error, Cancelled):
        return Stopped()
    if isinstance(error, UserError):
        return Stopped(str(error))
    traceback.print_exception(error)
    return Stopped(
        f"Something is wrong in the program ({type(error).__name__}); the terminal has the details."
    )
