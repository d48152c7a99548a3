"""What belongs to one open page: a folder of its own for results, what it waits for, what it shows."""

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
from triplaneturbo.utils.atomic_files import write_whole

if TYPE_CHECKING:
    from triplaneturbo.request import Request
    from triplaneturbo.serving.job_queue import Job

KEPT_RESULTS = 24
# All of one request: the viewer shows a file at a time, and may come for one that is not the last any more.
KEPT_SKETCHES = 64
# Seconds. A page that is out of sight for a while (a phone that sleeps) comes back and still has its
# downloads; one that nobody has touched for a day does not.
GRACE = 600.0
IDLE = 24 * 3600.0
# Seconds for which files are safe from the quota after their page was heard of: it comes for them, or shows
# them right now.
FRESH = 60.0


@dataclass(frozen=True)
class View:
    """What the viewer is to show.

    Attributes:
        path: a GLB.
        corners: three times its faces.
        placed: whether it has another size than the model gave it, so that the viewer has to find its own
            distance.
        number: how many views the page was told of, with this one.
    """

    path: Path
    corners: int
    placed: bool = False
    number: int = 1

    @property
    def text(self) -> str:
        """JSON, as `scripts.SHOW` reads it; no two views of a page have the same."""
        return json.dumps({**asdict(self), "path": str(self.path)})


class Session:
    """One page's folder and ticket; every method may be called from any thread.

    Attributes:
        folder: where its results lie; its name is random, so that nobody else can guess it.
        tab: which of the result's tabs the page looks at.
        made: the request of the last mesh.
        drawn: the request whose pictures the page has.
        variants: what the page's pictures of variants are of, in their order.
        past: ids of the results that the page's history shows, in its order.
        chosen: the id of the one that was clicked, "" if none was.
        used: when the page was heard of last, by the clock.

    Args:
        folder: for its results.
        clock: tells the seconds.
        make_room: see `Sessions`; None: there is no quota.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        make_room: Callable[[Session, bool], None] | None = None,
    ) -> None:
        self.folder = folder
        self.tab = ""
        self.made: Request | None = None
        self.drawn: Request | None = None
        self.variants: list[Request] = []
        self.past: list[str] = []
        self.chosen = ""
        self._lock = threading.Lock()
        self._ticket: Job | None = None
        self._views = 0
        self._sketches: deque[Path] = deque()
        self._results: OrderedDict[str, None] = OrderedDict()
        self._pictures: deque[list[Path]] = deque()
        self._entered = self._begun = 0
        self._clock = clock
        self._make_room = make_room
        self._users = 0
        self.used = clock()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While it is entered, something is made for the page, and no quota takes its files.

        Raises:
            UserError: the quota is used up.
        """
        with self._lock:
            self._users += 1
        try:
            if self._make_room is not None:
                self._make_room(self, True)
            yield
        finally:
            with self._lock:
                self._users -= 1
                self.used = self._clock()

    def clear(self, own: bool = False) -> bool:
        """Delete all files, unless the page was just heard of; True if they are gone.

        Args:
            own: the page asks for it itself, to make something new.
        """
        with self._lock:
            if not own and (self._users or self._clock() - self.used < FRESH):
                return False
            shutil.rmtree(self.folder, ignore_errors=True)
            for kept in (self._sketches, self._results, self._pictures):
                kept.clear()
            self.drawn = None
            return True

    def enter(self) -> int:
        """The number of what is asked for now; the larger, the later."""
        with self._lock:
            self._entered += 1
            return self._entered

    def begin(self, job: Job, number: int | None = None) -> bool:
        """Wait for `ticket` from now on; what was waited for before is cancelled: the latest wins.

        Args:
            ticket: of what was asked for when `enter` gave `number`; None: it is the latest.

        Returns:
            False if something later was begun already: this one is cancelled.
        """
        number = self.enter() if number is None else number
        with self._lock:
            late = number < self._begun
            if late:
                before: Job | None = job
            else:
                self._begun = number
                before, self._ticket = self._ticket, job
        if before is not None:
            before.cancel()
        return not late

    def forget(self, job: Job) -> None:
        """Wait for `ticket` no longer: it holds all that was made."""
        with self._lock:
            if self._ticket is job:
                self._ticket = None

    def waits_for(self, job: Job) -> bool:
        """Whether nothing was begun after `ticket`."""
        with self._lock:
            return self._ticket is job

    def show(self, path: Path, faces: int, job: Job | None = None, placed: bool = False) -> View | None:
        """The page's next view, a GLB; None if something was begun after `ticket`."""
        with self._lock:
            if job is not None and self._ticket is not job:
                return None
            self._views += 1
            return View(path, 3 * faces, placed, self._views)

    def sketch(self, data: bytes) -> Path:
        """Keep the bytes of a GLB for a short while; its path."""
        path = write_whole(self.folder / f"sketch-{secrets.token_hex(8)}.glb", data)
        with self._lock:
            self._sketches.append(path)
            while len(self._sketches) > KEPT_SKETCHES:
                self._sketches.popleft().unlink(missing_ok=True)
        return path

    def picture(self, paths: list[Path]) -> None:
        """Keep these pictures and the ones before them; older ones go."""
        with self._lock:
            self._pictures.append(paths)
            while len(self._pictures) > 2:
                for path in self._pictures.popleft():
                    path.unlink(missing_ok=True)

    def cancel(self) -> None:
        """Cancel what is waited for, if anything."""
        with self._lock:
            job = self._ticket
        if job is not None:
            job.cancel()

    def keep(self, name: str) -> Path:
        """The path, without suffix, for the files of the result called `name`; the oldest results go.

        Raises:
            UserError: the quota is used up.
        """
        if self._make_room is not None:
            self._make_room(self, False)
        with self._lock:
            self._results[name] = None
            self._results.move_to_end(name)
            while len(self._results) > KEPT_RESULTS:
                oldest, _ = self._results.popitem(last=False)
                for file in self.folder.glob(f"{oldest}.*"):
                    file.unlink(missing_ok=True)
        return self.folder / name


class Sessions:
    """All open pages, by Gradio's name for them.

    Args:
        root: the folder that holds the sessions' folders; nothing outside of it is ever served.
        clock: tells the seconds.
        quota: bytes that all folders may take together, besides what is written just now; None: any number.
    """

    def __init__(
        self, root: Path, clock: Callable[[], float] = time.monotonic, quota: int | None = None
    ) -> None:
        self._root = root
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}
        self._until: dict[str, float] = {}
        self._quota = quota
        self._sizes = FolderSizes()

    def of(self, key: str | None, heard: bool = True) -> Session:
        """The session called `key`, begun now if it is new; for None a short one of its own each time.

        Args:
            heard: whether the page does something, so that its files are safe from the quota for a while.
        """
        with self._lock:
            self._sweep()
            name = key or secrets.token_hex(16)
            self._until[name] = self._clock() + (IDLE if key else GRACE)
            if name not in self._open:
                folder = self._root / secrets.token_hex(16)
                self._open[name] = Session(folder, self._clock, self._make_room)
            if heard:
                self._open[name].used = self._clock()
            return self._open[name]

    def leave(self, key: str | None) -> None:
        """The page is closed: cancel what it waits for; if it does not come back, its folder goes."""
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
                shutil.rmtree(self._open.pop(key).folder, ignore_errors=True)

    def _make_room(self, asking: Session, anew: bool) -> None:
        """Delete the files of the pages that were not heard of for longest, until the quota is kept.

        Args:
            anew: the page that asks begins something new, and where it alone has more than the quota, its own
                files go, too.

        Raises:
            UserError: too much is in use.
        """
        if self._quota is None:
            return
        with self._lock:
            sessions = sorted(self._open.values(), key=lambda session: session.used)
            sizes = self._sizes.of(session.folder for session in sessions)
            excess = sum(sizes.values()) - self._quota
            for session in sessions:
                own = session is asking
                if (
                    excess > 0
                    and sizes[session.folder]
                    and (not own or (anew and sizes[session.folder] > self._quota))
                ):
                    excess -= sizes[session.folder] if session.clear(own) else 0
        if excess > 0:
            raise UserError(
                "The server's space for new results is used up by other pages; try again in a minute."
            )
