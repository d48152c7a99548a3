"""Several meshes asked for at once: variants of a prompt to choose from, or a blend's series."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.errors import UserError
from triplaneturbo.request import SEED_LIMIT, Request, path_text
from triplaneturbo.serving.jobs import MeshReady, Stopped, Waiting, Working, progress, save, watched
from triplaneturbo.utils.atomic_files import write_whole

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Outcome
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.job_queue import Job
    from triplaneturbo.serving.sessions import Session

# Enough to choose by: a quarter of a second each on a laptop's CPU.
PREVIEW_RESOLUTION = 48
LONGEST_SERIES = 16
# In the place of a picture.
NO_SURFACE = b"""<svg xmlns="http://www.w3.org/2000/svg" width="144" height="144" viewBox="0 0 144 144">\
<rect x="34" y="34" width="76" height="76" rx="10" fill="none" stroke="#94a3b8" stroke-width="3" \
stroke-dasharray="7 6"/><text x="72" y="77" font-family="sans-serif" font-size="13" text-anchor="middle" \
fill="#94a3b8">no surface</text></svg>
"""


@dataclass(frozen=True)
class BatchProgress:
    """So much is there.

    Attributes:
        made: in the order of the requests, up to now: the mesh, or why there is none.
        pictures: of each of them: turning, or saying that there is no mesh.
        total: how many there will be.
    """

    made: list[MeshReady | Stopped]
    pictures: list[Path]
    total: int

    @property
    def complete(self) -> bool:
        """Whether that is all."""
        return len(self.made) == self.total


def seeds(request: Request, count: int) -> list[Request]:
    """The request with its seed and those that follow; after the largest seed comes 0."""
    return [replace(request, seed=(request.seed + number) % (SEED_LIMIT + 1)) for number in range(count)]


def like(request: Request, count: int, strength: float) -> list[Request]:
    """The request with its noise, of a variation, too, turned by `strength` toward seeds drawn anew.

    Raises:
        UserError: a value of the request cannot be.
    """
    path = path_text(request.checked().turns())
    first = secrets.randbelow(1_000_000)
    return [
        replace(request, variation=strength, variation_seed=first + number, variation_path=path).checked()
        for number in range(count)
    ]


def series(request: Request, count: int) -> list[Request]:
    """The request's blend in `count` equal steps from its prompt to the other one.

    Raises:
        UserError: there is no other prompt, or the count is not 2 to 16.
    """
    if not request.blend:
        raise UserError("There is nothing to blend with: write another prompt into “Blend with”.")
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= LONGEST_SERIES:
        raise UserError(f"A series has from 2 to {LONGEST_SERIES} meshes.")
    return [replace(request, blend_weight=number / (count - 1)) for number in range(count)]


def previews(requests: Sequence[Request]) -> list[Request]:
    """The requests as quick forms: a coarse mesh with colours at its vertices."""
    return [
        replace(
            request,
            resolution=min(request.resolution or PREVIEW_RESOLUTION, PREVIEW_RESOLUTION),
            faces=None,
            unwrap="none",
        )
        for request in requests
    ]


def follow_batch(
    engine: Engine,
    session: Session,
    requests: Sequence[Request],
    alone: bool = True,
) -> Generator[Waiting | Working | BatchProgress | Stopped, None, None]:
    """Make several meshes for a session, each a GLB; ends with Stopped or with a complete Several.

    Args:
        alone: as for `follow`.
    """

    def work(job: Job) -> Generator[Waiting | Working | BatchProgress, None, None]:
        made: list[MeshReady | Stopped] = []
        pictures: list[Path] = []

        def more(outcomes: Sequence[Outcome]) -> BatchProgress | None:
            new = outcomes[len(made) :]
            for outcome in new:
                if isinstance(outcome, UserError):
                    made.append(Stopped(str(outcome)))
                    pictures.append(write_whole(session.folder / "no-surface.svg", NO_SURFACE))
                    continue
                (whole,) = save(engine, session, outcome, ("glb",))
                made.append(whole)
                picture = whole.files["glb"].with_suffix(".webp")
                pictures.append(write_whole(picture, engine.turntable(outcome.mesh)))
            return BatchProgress(list(made), list(pictures), len(requests)) if new else None

        for event in progress(job, session):
            several = more(job.made)
            if several is not None:
                yield several
                if several.complete:  # of events from before it there may be more
                    return
            yield event
        several = more(job.results())
        if several is not None:
            yield several

    return watched(session, lambda: engine.submit(*requests), work, alone)
