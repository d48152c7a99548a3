"""Batch jobs of the page: variants of a prompt to choose from, and series between two blended prompts."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.errors import UserError
from triplaneturbo.request import SEED_LIMIT, Request, path_text
from triplaneturbo.serving.file_options import DEFAULT_FILES, FileOptions
from triplaneturbo.serving.jobs import MeshReady, Stopped, Waiting, Working, progress, save, watched
from triplaneturbo.utils.atomic_files import write_atomically

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Outcome
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.job_queue import Job
    from triplaneturbo.serving.sessions import Session

# Fine enough to choose by: a quarter of a second each on a laptop's CPU.
PREVIEW_RESOLUTION = 48
LONGEST_SERIES = 16
# Shown in place of a picture.
NO_SURFACE = b"""<svg xmlns="http://www.w3.org/2000/svg" width="144" height="144" viewBox="0 0 144 144">\
<rect x="34" y="34" width="76" height="76" rx="10" fill="none" stroke="#94a3b8" stroke-width="3" \
stroke-dasharray="7 6"/><text x="72" y="77" font-family="sans-serif" font-size="13" text-anchor="middle" \
fill="#94a3b8">no surface</text></svg>
"""


@dataclass(frozen=True)
class BatchProgress:
    """The finished part of a batch.

    Attributes:
        made: for each request processed so far, in order: its mesh, or the reason why there is none.
        pictures: for each of them: a turntable animation, or an image that says that there is no mesh.
        total: number of requests.
    """

    made: list[MeshReady | Stopped]
    pictures: list[Path]
    total: int

    @property
    def complete(self) -> bool:
        """Whether all requests are processed."""
        return len(self.made) == self.total


def seeds(request: Request, count: int) -> list[Request]:
    """Return `count` copies of the request with consecutive seeds; after the largest seed comes 0."""
    return [replace(request, seed=(request.seed + number) % (SEED_LIMIT + 1)) for number in range(count)]


def like(request: Request, count: int, strength: float) -> list[Request]:
    """Return `count` variations of the request: its noise rotated by `strength` toward new random seeds.

    A request that is a variation itself keeps its rotations; the new one follows them.

    Raises:
        UserError: a value of the request is invalid.
    """
    path = path_text(request.checked().turns())
    first = secrets.randbelow(1_000_000)
    return [
        replace(request, variation=strength, variation_seed=first + number, variation_path=path).checked()
        for number in range(count)
    ]


def series(request: Request, count: int) -> list[Request]:
    """Return `count` requests whose blend weights go from 0 to 1 in equal steps.

    Raises:
        UserError: the request has no second prompt, or the count is not 2 to 16.
    """
    if not request.blend:
        raise UserError("The second prompt is missing: enter one in “Blend with”.")
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= LONGEST_SERIES:
        raise UserError(f"Invalid number of meshes {count!r}: use 2 to {LONGEST_SERIES} for a series.")
    return [replace(request, blend_weight=number / (count - 1)) for number in range(count)]


def previews(requests: Sequence[Request]) -> list[Request]:
    """Return the requests with preview settings: a coarse grid, vertex colours, all faces, one level."""
    return [
        replace(
            request,
            resolution=min(request.resolution or PREVIEW_RESOLUTION, PREVIEW_RESOLUTION),
            faces=None,
            unwrap="none",
            lods=1,
        )
        for request in requests
    ]


def follow_batch(
    engine: Engine,
    session: Session,
    requests: Sequence[Request],
    alone: bool = True,
    options: FileOptions = DEFAULT_FILES,
) -> Generator[Waiting | Working | BatchProgress | Stopped, None, None]:
    """Generate several GLBs for a session; the last event is Stopped or a complete BatchProgress.

    Args:
        alone, options: as for `follow`.
    """

    def work(job: Job) -> Generator[Waiting | Working | BatchProgress, None, None]:
        made: list[MeshReady | Stopped] = []
        pictures: list[Path] = []

        def save_new(outcomes: Sequence[Outcome]) -> BatchProgress | None:
            new = outcomes[len(made) :]
            for outcome in new:
                if isinstance(outcome, UserError):
                    made.append(Stopped(str(outcome)))
                    pictures.append(write_atomically(session.folder / "no-surface.svg", NO_SURFACE))
                    continue
                (ready,) = save(engine, session, outcome, ("glb",), options)
                made.append(ready)
                picture = ready.files["glb"].with_suffix(".webp")
                pictures.append(write_atomically(picture, engine.turntable(outcome.mesh)))
            return BatchProgress(list(made), list(pictures), len(requests)) if new else None

        for event in progress(engine, job, session):
            batch = save_new(job.made)
            if batch is not None:
                yield batch
                if batch.complete:  # skip the events from before its completion
                    return
            yield event
        batch = save_new(job.results())
        if batch is not None:
            yield batch

    return watched(session, lambda: engine.submit(*requests), work, alone)
