"""One request from the page: handed to the engine, followed to its end, its files written."""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triplaneturbo.commands.generate import describe
from triplaneturbo.commands.outputs import FORMATS, safe_name, write
from triplaneturbo.errors import Cancelled, UserError

if TYPE_CHECKING:
    from triplaneturbo.engine import Engine
    from triplaneturbo.request import Request
    from triplaneturbo.ui.sessions import Session

WAIT = 0.3  # seconds between two looks at a place in the line


@dataclass(frozen=True)
class Waiting:
    """In the line, behind `ahead` other requests."""

    ahead: int


@dataclass(frozen=True)
class Working:
    """A stage has begun, or a denoising step has ended; as Progress tells it."""

    stage: str
    fraction: float
    seconds: float
    step: int
    steps: int


@dataclass(frozen=True)
class Made:
    """The mesh is made and `files` (by format) are written; more may follow.

    Attributes:
        files: by format, with what is there already.
        facts: as the command line's --json tells them, with "files" and the seconds of writing them.
        unread: the end of the prompt that the model does not read.
        complete: whether all files are there.
    """

    files: dict[str, Path]
    facts: dict[str, Any]
    unread: str = ""
    complete: bool = False


@dataclass(frozen=True)
class Stopped:
    """There is no mesh: `sentence` says why, "" if it was cancelled."""

    sentence: str = field(default="")


Event = Waiting | Working | Made | Stopped


def follow(
    engine: Engine, session: Session, request: Request, alone: bool = True
) -> Generator[Event, None, None]:
    """Make a mesh for a session, telling what happens; ends with Stopped or with a complete Made.

    Closing the generator cancels the request.
    """
    try:
        yield from _follow(engine, session, request, alone)
    except Cancelled:
        yield Stopped()
    except UserError as error:
        yield Stopped(str(error))
    except Exception as error:
        traceback.print_exc()
        yield Stopped(
            f"Something is wrong in the program ({type(error).__name__}); the terminal has the details."
        )


def _follow(engine: Engine, session: Session, request: Request, alone: bool) -> Generator[Event, None, None]:
    ticket = engine.submit(request)
    if alone:
        session.begin(ticket)
    try:
        ahead = -1
        while ticket.position:
            if ticket.position != ahead:
                ahead = ticket.position or 0
                yield Waiting(ahead)
            time.sleep(WAIT)
        for event in ticket.events():
            yield Working(event.stage, event.fraction, event.seconds, event.step, event.steps)
        result = ticket.result()
    finally:
        ticket.cancel()  # of no effect once it has ended
    stem = session.keep(safe_name(result.request, engine.name))
    facts: dict[str, Any] = describe(result, engine) | {"cached": result.cached, "files": []}
    files: dict[str, Path] = {}
    since = time.perf_counter()
    yield Working(
        "files", 0.97, result.seconds["total"], result.request.steps or 0, result.request.steps or 0
    )
    for name in ("glb", "obj"):
        path = stem.with_name(stem.name + FORMATS[name])
        facts["files"] = [*facts["files"], *write(engine, result.mesh, {name: path})]
        taken = round(time.perf_counter() - since, 4)
        total = round(result.seconds["total"] + taken, 4)
        facts["seconds"] = {**facts["seconds"], "files": taken, "total": total}
        files = {**files, name: path}
        yield Made(files, dict(facts), result.unread, complete=name == "obj")
