"""Sessions of open pages: each has a folder for its results, its active job and the state of its view."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.errors import UserError
from triplaneturbo.serving.folder_sizes import FolderSizes
from triplaneturbo.utils.atomic_files import write_atomically

if TYPE_CHECKING:
    from triplaneturbo.request import Request
    from triplaneturbo.serving.job_queue import Job

KEPT_RESULTS = 24
# All sketches of one request: the viewer may fetch one that is no longer the latest.
KEPT_SKETCHES = 64
KEPT_PICTURES = 4  # sets: debug images and comparisons, of the last mesh and the one before
# Seconds until a session is deleted: after its page was closed (a sleeping phone may come back and expects
# its downloads), and after its page was last active.
GRACE = 600.0
IDLE = 24 * 3600.0
# Seconds during which files are exempt from the quota after activity of their page, which is likely to
# fetch or show them.
FRESH = 60.0


@dataclass(frozen=True)
class View:
    """A mesh for the viewer to show.

    Attributes:
        path: path of a GLB.
        corners: three times the number of faces.
        placed: whether the mesh was scaled, so that the viewer must adjust its camera distance.
        number: sequence number of the view within its page.
    """

    path: Path
    corners: int
    placed: bool = False
    number: int = 1

    @property
    def text(self) -> str:
        """JSON for `scripts.SHOW`, different for any two views of a page."""
        return json.dumps({**asdict(self), "path": str(self.path)})


class Session:
    """State of one open page. All methods are thread-safe.

    Args:
        folder: folder for the page's results.
        clock: returns the time in seconds.
        free_space: `Sessions._free_space`; None: there is no quota.

    Attributes:
        folder: folder of the page's results; its random name cannot be guessed.
        tab: the selected tab of the result.
        shown: the request of the mesh that the page shows, and the name of its model; None before the first,
            and for a mesh that cannot be made again.
        drawn: the value of `shown` whose debug images the page shows; None: no images.
        variants: the requests of the page's variant images, in order.
        past: ids of the results that the page's history shows, in order.
        chosen: id of the selected result; "" if none is selected.
        upload_key: key with which the page uploads files; "" if it may not.
        used: time of the page's last activity.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        free_space: Callable[[Session, bool], None] | None = None,
    ) -> None:
        self.folder = folder
        self.tab = ""
        self.drawn: tuple[Request, str] | None = None
        self.shown: tuple[Request, str] | None = None
        self.variants: list[Request] = []
        self.past: list[str] = []
        self.chosen = ""
        self.upload_key = ""
        self._uploads: set[str] | None = set()  # digests; None once the session is removed
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._views = 0
        self._sketches: deque[Path] = deque()
        self._results: OrderedDict[str, None] = OrderedDict()
        self._pictures: deque[list[Path]] = deque()
        self._entered = self._begun = 0
        self._clock = clock
        self._free_space = free_space
        self._users = 0
        self.used = clock()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Mark the session as busy in this context, which exempts its files from the quota.

        Raises:
            UserError: the quota is exhausted.
        """
        with self._lock:
            self._users += 1
        try:
            if self._free_space is not None:
                self._free_space(self, True)
            yield
        finally:
            with self._lock:
                self._users -= 1
                self.used = self._clock()

    def clear(self, own: bool = False) -> bool:
        """Delete all files unless the page is busy or was active recently; return whether they were deleted.

        Args:
            own: delete them in any case, as the page itself needs the space.
        """
        with self._lock:
            if not own and (self._users or self._clock() - self.used < FRESH):
                return False
            shutil.rmtree(self.folder, ignore_errors=True)
            for files in (self._sketches, self._results, self._pictures):
                files.clear()
            self.drawn = None
            return True

    def add_upload(self, digest: str) -> bool:
        """Remember a file that the page has uploaded; False if the session has been removed."""
        with self._lock:
            if self._uploads is None:
                return False
            self._uploads.add(digest)
            return True

    def remove(self) -> set[str]:
        """Delete the files of a session that nobody will use again; return the digests of its uploads."""
        with self._lock:
            uploads, self._uploads = self._uploads or set(), None
        shutil.rmtree(self.folder, ignore_errors=True)
        return uploads

    def enter(self) -> int:
        """Return the number of a new request; later requests have larger numbers."""
        with self._lock:
            self._entered += 1
            return self._entered

    def begin(self, job: Job, number: int | None = None) -> bool:
        """Make `job` the session's active job and cancel the previous one.

        Args:
            job: the new job.
            number: the request's number from `enter`; None: it is the latest.

        Returns:
            False if the job of a later request has started already; `job` is cancelled then.
        """
        number = self.enter() if number is None else number
        with self._lock:
            outdated = number < self._begun
            if outdated:
                superseded: Job | None = job
            else:
                self._begun = number
                superseded, self._job = self._job, job
        if superseded is not None:
            superseded.cancel()
        return not outdated

    def forget(self, job: Job) -> None:
        """Drop the reference to an ended job, which holds its results."""
        with self._lock:
            if self._job is job:
                self._job = None

    def waits_for(self, job: Job) -> bool:
        """Whether `job` is still the session's active job."""
        with self._lock:
            return self._job is job

    def show(self, path: Path, faces: int, job: Job | None = None, placed: bool = False) -> View | None:
        """Return the page's next view of a GLB; None if `job` is no longer the active job."""
        with self._lock:
            if job is not None and self._job is not job:
                return None
            self._views += 1
            return View(path, 3 * faces, placed, self._views)

    def sketch(self, data: bytes) -> Path:
        """Write the GLB of a sketch and return its path; the oldest sketches are deleted."""
        path = write_atomically(self.folder / f"sketch-{secrets.token_hex(8)}.glb", data)
        with self._lock:
            self._sketches.append(path)
            while len(self._sketches) > KEPT_SKETCHES:
                self._sketches.popleft().unlink(missing_ok=True)
        return path

    def picture(self, paths: list[Path]) -> None:
        """Register a set of new pictures; all but the last few sets are deleted."""
        with self._lock:
            self._pictures.append(paths)
            while len(self._pictures) > KEPT_PICTURES:
                for path in self._pictures.popleft():
                    path.unlink(missing_ok=True)

    def cancel(self) -> None:
        """Cancel the active job, if there is one."""
        with self._lock:
            job = self._job
        if job is not None:
            job.cancel()

    def stop(self) -> None:
        """End the active job early with its result so far, or cancel it if it has none."""
        with self._lock:
            job = self._job
        if job is not None:
            job.stop()

    def keep(self, name: str) -> Path:
        """Return the path, without suffix, for the files of a result; the oldest results are deleted.

        Raises:
            UserError: the quota is exhausted.
        """
        if self._free_space is not None:
            self._free_space(self, False)
        with self._lock:
            self._results[name] = None
            self._results.move_to_end(name)
            while len(self._results) > KEPT_RESULTS:
                oldest, _ = self._results.popitem(last=False)
                for file in self.folder.glob(f"{oldest}.*"):
                    file.unlink(missing_ok=True)
        return self.folder / name


class Sessions:
    """The sessions of all open pages, by Gradio's session hash.

    Args:
        root: the folder that contains the sessions' folders.
        clock: returns the time in seconds.
        quota: bytes that all folders may take together, without files being written; None: unlimited.
        on_removed: called with a session that is removed and the digests of its uploads.
    """

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.monotonic,
        quota: int | None = None,
        on_removed: Callable[[Session, set[str]], None] = lambda session, uploads: None,
    ) -> None:
        self._root = root
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}
        self._until: dict[str, float] = {}
        self._quota = quota
        self._on_removed = on_removed
        self._sizes = FolderSizes()

    def of(self, key: str | None, heard: bool = True) -> Session:
        """Return the session of a page, creating it if necessary; for None always a new, short-lived one.

        Args:
            key: Gradio's session hash.
            heard: whether this counts as activity, which exempts the files from the quota for a while.
        """
        with self._lock:
            self._sweep()
            name = key or secrets.token_hex(16)
            self._until[name] = self._clock() + (IDLE if key else GRACE)
            if name not in self._open:
                folder = self._root / secrets.token_hex(16)
                self._open[name] = Session(folder, self._clock, self._free_space)
            if heard:
                self._open[name].used = self._clock()
            return self._open[name]

    def leave(self, key: str | None) -> None:
        """Cancel the job of a closed page; its session is removed later unless the page comes back."""
        with self._lock:
            session = self._open.get(key or "")
            if session is not None:
                self._until[key or ""] = self._clock() + GRACE
            self._sweep()
        if session is not None:
            session.cancel()

    def _sweep(self) -> None:
        for key, until in list(self._until.items()):
            if self._clock() >= until:
                del self._until[key]
                session = self._open.pop(key)
                self._on_removed(session, session.remove())

    def _free_space(self, requesting: Session, new_job: bool) -> None:
        """Delete the files of the least recently active pages until the quota is met.

        Args:
            requesting: the session that needs the space.
            new_job: whether it starts a new job; if it alone exceeds the quota, its files are deleted, too.

        Raises:
            UserError: too many files are in use.
        """
        if self._quota is None:
            return
        with self._lock:
            sessions = sorted(self._open.values(), key=lambda session: session.used)
            sizes = self._sizes.of(session.folder for session in sessions)
            excess = sum(sizes.values()) - self._quota
            for session in sessions:
                own = session is requesting
                if (
                    excess > 0
                    and sizes[session.folder]
                    and (not own or (new_job and sizes[session.folder] > self._quota))
                ):
                    excess -= sizes[session.folder] if session.clear(own) else 0
        if excess > 0:
            raise UserError(
                "The server's disk space for new results is used by other pages; try again in a minute."
            )
