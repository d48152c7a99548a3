"""Requests waiting in line for a worker, and the tickets with which their callers follow them."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Any, Protocol, TypeVar

from triplaneturbo.errors import Cancelled, EngineClosedError, QueueFullError, UserError
from triplaneturbo.pipeline import Outcome, Progress, Result, Sketches
from triplaneturbo.request import Request

# Makes the requests of one ticket; as many outcomes as there are requests, in their order.
Work = Callable[[Sequence[Request], Sketches], Generator[Progress | Outcome, None, None]]
Value = TypeVar("Value")


class IdleTask(Protocol):
    """What the last thread of a line does while nobody waits; it calls these, and nothing of it may raise."""

    def work(self) -> bool:
        """One piece; whether there is another one. Requests come in between."""

    def end(self) -> None:
        """The line is closed: put away what is under way."""


REMEMBERED = 16  # requests from whose seconds the next ones' are estimated
FIRST_GUESS = 2.0  # seconds of a request, before any has ended
# Seconds for which a thread stays free after a request or a call: a page that has its mesh asks for its files
# next, one call after the other, and none of these is to wait for a piece of idle work.
REST = 0.3


_INTERRUPTIBLE = 1.0  # seconds: on Windows Ctrl+C is only seen between waits


class Job:
    """A request on its way, or several that are made together; every method may be called from any thread.

    Attributes:
        requests: what was asked for.
        sketches: of which steps.
    """

    def __init__(self, requests: Sequence[Request], line: JobQueue, sketches: Sketches = "none") -> None:
        self.requests = tuple(requests)
        self.sketches = sketches
        self._line = line
        self._changed = threading.Condition()
        self._events: list[Progress] = []
        self._made: list[Outcome] = []
        self._outcome: list[Outcome] | BaseException | None = None
        self._cancelled = False

    @property
    def request(self) -> Request:
        """The first, or only, request."""
        return self.requests[0]

    @property
    def made(self) -> list[Outcome]:
        """The outcomes so far, in the order of the requests."""
        with self._changed:
            return list(self._made)

    def events(self, rest: float = 0.0) -> Iterator[Progress]:
        """Progress events from the first, each as it comes, until the request ends, in whatever way.

        Args:
            rest: seconds. Of events that come within that time after one was told, only the last is told,
                when it is over; one with a sketch, and the last of all, are told at once.
        """
        seen, told = 0, -math.inf
        while True:
            with self._changed:
                while True:
                    news = self._events[seen:]
                    left = told + rest - time.monotonic()
                    if self._outcome is not None or (news and left <= 0) or any(map(_shows, news)):
                        break
                    self._changed.wait(left if news else _INTERRUPTIBLE)
                ended = self._outcome is not None
            seen += len(news)
            for event in news if rest <= 0 else _worth_telling(news):
                told = time.monotonic()
                yield event
            if ended and not news:
                return

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the mesh, the first of several.

        Raises:
            Cancelled: the request was cancelled.
            TimeoutError: it took longer than `timeout` seconds.
            UserError: there is no mesh, and the sentence says why.
        """
        first = self.results(timeout)[0]
        if isinstance(first, UserError):
            raise first
        return first

    def results(self, timeout: float | None = None) -> list[Outcome]:
        """Wait for what each of the requests comes to: a Result, or the UserError that says why not.

        Raises:
            Cancelled: the request was cancelled; what was made before is still in `made`.
            TimeoutError: it took longer than `timeout` seconds.
            UserError: nothing can be made at all, and the sentence says why.
        """
        with self._changed:
            while timeout is None and self._outcome is None:
                self._changed.wait(_INTERRUPTIBLE)
            if not self._changed.wait_for(lambda: self._outcome is not None, timeout):
                raise TimeoutError(f"no result within {timeout} s")
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def cancel(self) -> None:
        """Stop at once if waiting, else before the next step or stage begins; nothing if it has ended."""
        with self._changed:
            self._cancelled = True
        if self._line.leave(self):
            self.finish(Cancelled())

    @property
    def cancelled(self) -> bool:
        """Whether anybody has asked to stop it."""
        return self._cancelled

    @property
    def done(self) -> bool:
        """Whether it has ended: with a result, with an error or cancelled."""
        return self._outcome is not None

    @property
    def position(self) -> int | None:
        """How many requests end before this one begins; 0 while it is being worked on, None when ended."""
        return None if self.done else self._line.ahead_of(self)

    def add(self, event: Progress) -> None:
        """For the worker: one more event."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def keep(self, outcome: Outcome) -> None:
        """For the worker: the next request's outcome."""
        with self._changed:
            self._made.append(outcome)

    def finish(self, error: BaseException | None = None) -> None:
        """For the worker: the end."""
        with self._changed:
            if self._outcome is None:
                self._outcome = list(self._made) if error is None else error
            self._changed.notify_all()


def _shows(event: Progress) -> bool:
    return event.glb is not None or event.sketch is not None


def _worth_telling(news: Sequence[Progress]) -> list[Progress]:
    return [event for event in news[:-1] if _shows(event)] + list(news[-1:])


class JobQueue:
    """First come, first served by one or several threads, which no error ends.

    Args:
        works: for each thread what makes the events and outcomes of a ticket; called in it only.
        name: of the threads.
        size: the most requests that may wait, 1 or more; None: any number.
        clock: tells the seconds.
    """

    def __init__(
        self,
        works: Sequence[Work],
        name: str,
        size: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._closed = False
        self._size = size
        self._clock = clock
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self._workers = [_Worker(self, work) for work in works]
        for number, worker in enumerate(self._workers):
            worker.thread = threading.Thread(target=worker.serve, name=f"{name} {number}", daemon=True)
            worker.thread.start()

    def join(self, *requests: Request, sketches: Sketches = "none") -> Job:
        """Stand at the end of the line.

        Raises:
            EngineClosedError: the line is closed.
            QueueFullError: too many requests wait already. Where none waits, any number on one ticket may.
        """
        job = Job(requests, self, sketches)
        with self._changed:
            if self._closed:
                raise EngineClosedError
            waiting = sum(len(other.requests) for other in self._waiting)
            if self._size is not None and waiting and waiting + len(requests) > self._size:
                raise QueueFullError(self._seconds_for(waiting))
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def call(self, function: Callable[[], Value], worker: int = 0) -> Value:
        """Have a worker's thread do something short, before the next event of what it works on.

        OpenMP keeps a team of threads for each thread that asks it for work, and as soon as there are more
        of them than cores, every team is put to sleep between any two loops: half the speed on two cores.
        So whatever is more than a moment's work for torch is done in that one thread.

        Once the line is closed, or in the worker's own thread, it is done here and now.
        """
        chosen = self._workers[worker]
        future: Future[Value] = Future()
        with self._changed:
            elsewhere = not self._closed and threading.current_thread() is not chosen.thread
            if elsewhere:
                chosen.calls.append((function, future))
                self._changed.notify_all()
        return future.result() if elsewhere else function()

    def when_idle(self, idle: IdleTask) -> None:
        """What the last of the threads does, piece by piece, while no request waits; begun by `wake`."""
        self._workers[-1].idle = idle

    def wake(self) -> None:
        """Have the idle work looked at: there may be something to do now."""
        with self._changed:
            self._workers[-1].awake = self._workers[-1].idle is not None
            self._changed.notify_all()

    def leave(self, job: Job) -> bool:
        """Take a waiting ticket out; False if it is not waiting."""
        with self._changed:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            return True

    def ahead_of(self, job: Job) -> int:
        """How many have to end before `ticket` is begun; 0 if it is not waiting."""
        with self._changed:
            if job not in self._waiting:
                return 0
            free = sum(worker.current is None for worker in self._workers)
            return max(0, self._waiting.index(job) + 1 - free)

    def _seconds_for(self, requests: int) -> int:
        """In how many seconds so many requests are likely to be done; 1 or more."""
        each = sum(self._took) / len(self._took) if self._took else FIRST_GUESS
        return max(1, math.ceil(each * requests / len(self._workers)))

    def close(self, timeout: float | None = None) -> bool:
        """Cancel everything and end the threads, waiting up to `timeout` seconds; True if all have ended."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *(w.current for w in self._workers if w.current is not None)]
            self._changed.notify_all()
        for job in jobs:
            job.cancel()
        until = None if timeout is None else time.monotonic() + timeout
        for worker in self._workers:
            worker.thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not any(worker.thread.is_alive() for worker in self._workers)


class _Worker:
    """One thread of a line."""

    thread: threading.Thread

    def __init__(self, line: JobQueue, work: Work) -> None:
        self._line, self._work = line, work
        self.calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self.current: Job | None = None
        self.idle: IdleTask | None = None
        self.awake = False
        self.free_at = 0.0

    def serve(self) -> None:
        """Work until the line is closed."""
        try:
            self._serve()
        finally:
            if self.idle is not None:
                self.idle.end()

    def _serve(self) -> None:
        line = self._line
        while True:
            self._do_calls()
            with line._changed:
                line._changed.wait_for(
                    lambda: bool(line._waiting or self.calls or self.awake) or line._closed
                )
                if self.awake and not (line._waiting or self.calls or line._closed):
                    rest = self.free_at - time.monotonic()
                    line._changed.wait_for(lambda: bool(line._waiting or self.calls) or line._closed, rest)
                if self.calls:
                    continue
                job = self.current = line._waiting.popleft() if line._waiting else None
                if job is None:
                    if line._closed:
                        return
                    self.awake = False  # whoever wakes it from now on is not overheard
            if job is None:
                if self.idle is not None and self.idle.work():
                    line.wake()
                continue
            failure: BaseException | None = None
            since = line._clock()
            try:
                self._run(job)
            except BaseException as error:
                failure = error
            with line._changed:
                self.current = None
                line._took.append((line._clock() - since) / len(job.requests))
            self.free_at = time.monotonic() + REST
            job.finish(failure)
            del job, failure  # what was made is not to be held until the next comes

    def _run(self, job: Job) -> None:
        with closing(self._work(job.requests, job.sketches)) as events:
            for event in events:
                if isinstance(event, Progress):
                    job.add(event)
                    self._do_calls()
                    if job.cancelled:
                        raise Cancelled
                    continue
                job.keep(event)
                if len(job.made) == len(job.requests):
                    return
        raise RuntimeError("the work ended without a result")

    def _do_calls(self) -> None:
        while True:
            with self._line._changed:
                if not self.calls:
                    return
                function, future = self.calls.popleft()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            self.free_at = time.monotonic() + REST
