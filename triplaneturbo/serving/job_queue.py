"""Queue of generation jobs for one or more worker threads, and the handles with which callers follow them."""

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

# Processes the requests of one job; yields as many outcomes as there are requests, in their order.
Work = Callable[[Sequence[Request], Sketches], Generator[Progress | Outcome, None, None]]
Value = TypeVar("Value")


class IdleTask(Protocol):
    """Background work of the last worker thread while no job waits. Its methods must not raise."""

    def work(self) -> bool:
        """Do one piece of work; return whether there is more. Jobs run between pieces."""

    def end(self) -> None:
        """Clean up when the queue is closed."""


DURATION_WINDOW = 16  # the waiting time is estimated from the durations of this many recent requests
INITIAL_ESTIMATE = 2.0  # seconds per request before any has finished
# Seconds for which a thread stays free after a job or a call: a page that has its mesh asks for its files
# next, one call after the other, and none of them should wait for a piece of idle work.
IDLE_DELAY = 0.3


_INTERRUPTIBLE = 1.0  # seconds: on Windows Ctrl+C is only seen between waits


class Job:
    """A submitted request, or several that are processed as one batch. All methods are thread-safe.

    Attributes:
        requests: the requests, in order.
        sketches: which denoising steps are decoded to a coarse mesh.
        early_end: set to end the running job early, with the result so far; None: it has none before its end.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        queue: JobQueue,
        sketches: Sketches = "none",
        early_end: threading.Event | None = None,
    ) -> None:
        self.requests = tuple(requests)
        self.sketches = sketches
        self.early_end = early_end
        self._queue = queue
        self._changed = threading.Condition()
        self._events: list[Progress] = []
        self._made: list[Outcome] = []
        self._outcome: list[Outcome] | BaseException | None = None
        self._cancelled = False

    @property
    def request(self) -> Request:
        """The first (or only) request."""
        return self.requests[0]

    @property
    def made(self) -> list[Outcome]:
        """A copy of the outcomes so far, in the order of the requests."""
        with self._changed:
            return list(self._made)

    def events(self, min_interval: float = 0.0) -> Iterator[Progress]:
        """Yield all progress events from the first one, as they arrive, until the job ends.

        Args:
            min_interval: seconds between two events. Of the events that arrive sooner, only the latest is
                yielded, once the interval has passed. Events with a sketch and the last one are not delayed.
        """
        seen, last_sent = 0, -math.inf
        while True:
            with self._changed:
                while True:
                    new = self._events[seen:]
                    remaining = last_sent + min_interval - time.monotonic()
                    if self._outcome is not None or (new and remaining <= 0) or any(map(_has_sketch, new)):
                        break
                    self._changed.wait(remaining if new else _INTERRUPTIBLE)
                ended = self._outcome is not None
            seen += len(new)
            for event in new if min_interval <= 0 else _throttled(new):
                last_sent = time.monotonic()
                yield event
            if ended and not new:
                return

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the result of the first request.

        Raises:
            Cancelled: the job was cancelled.
            TimeoutError: there is no result after `timeout` seconds.
            UserError: the mesh could not be generated.
        """
        first = self.results(timeout)[0]
        if isinstance(first, UserError):
            raise first
        return first

    def results(self, timeout: float | None = None) -> list[Outcome]:
        """Wait for the outcome of every request: a Result, or the UserError that explains its absence.

        Raises:
            Cancelled: the job was cancelled; earlier outcomes are still in `made`.
            TimeoutError: the job is not finished after `timeout` seconds.
            UserError: the job as a whole failed.
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
        """Cancel a waiting job at once, a running one before its next step; no-op if it has ended."""
        with self._changed:
            self._cancelled = True
        if self._queue.remove(self):
            self.finish(Cancelled())

    def stop(self) -> None:
        """End a running job early with its result so far; cancel a job that waits or has none."""
        if self.early_end is None or self._queue.is_waiting(self):
            self.cancel()
        else:
            self.early_end.set()

    @property
    def cancelled(self) -> bool:
        """Whether cancellation was requested."""
        return self._cancelled

    @property
    def done(self) -> bool:
        """Whether the job has ended: with results, with an error or by cancellation."""
        return self._outcome is not None

    @property
    def position(self) -> int | None:
        """How many jobs must end before this one starts; 0 while it runs, None once it has ended."""
        return None if self.done else self._queue.position_of(self)

    def add_event(self, event: Progress) -> None:
        """Append a progress event (worker only)."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def add_outcome(self, outcome: Outcome) -> None:
        """Append the outcome of the next request (worker only)."""
        with self._changed:
            self._made.append(outcome)

    def finish(self, error: BaseException | None = None) -> None:
        """End the job, with `error` if it failed (worker only)."""
        with self._changed:
            if self._outcome is None:
                self._outcome = list(self._made) if error is None else error
            self._changed.notify_all()


def _has_sketch(event: Progress) -> bool:
    return event.glb is not None or event.sketch is not None


def _throttled(events: Sequence[Progress]) -> list[Progress]:
    """The events with a sketch, and the last one."""
    return [event for event in events[:-1] if _has_sketch(event)] + list(events[-1:])


class JobQueue:
    """First-in, first-out queue served by one or more threads, which survive any error of a job.

    Args:
        work_functions: one per thread, which yields a job's events and outcomes; called in that thread only.
        name: name of the threads.
        size: maximum number of waiting requests, 1 or more; None: unlimited.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        work_functions: Sequence[Work],
        name: str,
        size: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._closed = False
        self._size = size
        self._clock = clock
        self._durations: deque[float] = deque(maxlen=DURATION_WINDOW)
        self._workers = [_Worker(self, work) for work in work_functions]
        for number, worker in enumerate(self._workers):
            worker.thread = threading.Thread(target=worker.serve, name=f"{name} {number}", daemon=True)
            worker.thread.start()

    def submit(
        self, *requests: Request, sketches: Sketches = "none", early_end: threading.Event | None = None
    ) -> Job:
        """Append a job of one or more requests; see `Job` for the arguments.

        Raises:
            EngineClosedError: the queue is closed.
            QueueFullError: too many requests wait already. An empty queue accepts a job of any size.
        """
        job = Job(requests, self, sketches, early_end)
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
        """Run a short function in a worker's thread, before the next event of its job, and return its value.

        OpenMP keeps a team of threads for each thread that starts a parallel region. With more
        threads than cores, every team sleeps between any two loops, which halves the speed on two cores. So
        all torch work that takes more than a moment is done in the worker's thread.

        Runs the function directly if the queue is closed or the caller is the worker's thread.
        """
        chosen = self._workers[worker]
        future: Future[Value] = Future()
        with self._changed:
            elsewhere = not self._closed and threading.current_thread() is not chosen.thread
            if elsewhere:
                chosen.calls.append((function, future))
                self._changed.notify_all()
        return future.result() if elsewhere else function()

    def set_idle_task(self, task: IdleTask) -> None:
        """Set the task of the last worker, done piece by piece while no job waits; `wake` starts it."""
        self._workers[-1].idle_task = task

    def wake(self) -> None:
        """Start the idle task: it may have work now."""
        with self._changed:
            self._workers[-1].awake = self._workers[-1].idle_task is not None
            self._changed.notify_all()

    def remove(self, job: Job) -> bool:
        """Remove a waiting job; False if it is not waiting."""
        with self._changed:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            return True

    def is_waiting(self, job: Job) -> bool:
        """Whether a job has not started yet."""
        with self._changed:
            return job in self._waiting

    def position_of(self, job: Job) -> int:
        """How many jobs must end before `job` starts; 0 if it is not waiting."""
        with self._changed:
            if job not in self._waiting:
                return 0
            free = sum(worker.current is None for worker in self._workers)
            return max(0, self._waiting.index(job) + 1 - free)

    def _seconds_for(self, requests: int) -> int:
        """Estimate the seconds until this many requests are done; at least 1."""
        mean = sum(self._durations) / len(self._durations) if self._durations else INITIAL_ESTIMATE
        return max(1, math.ceil(mean * requests / len(self._workers)))

    def close(self, timeout: float | None = None) -> bool:
        """Cancel all jobs and stop the threads; return whether all ended within `timeout` seconds."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *(w.current for w in self._workers if w.current is not None)]
            self._changed.notify_all()
        for job in jobs:
            job.cancel()
        deadline = None if timeout is None else time.monotonic() + timeout
        for worker in self._workers:
            worker.thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(worker.thread.is_alive() for worker in self._workers)


class _Worker:
    """One thread of a queue."""

    thread: threading.Thread

    def __init__(self, queue: JobQueue, work: Work) -> None:
        self._queue, self._work = queue, work
        self.calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self.current: Job | None = None
        self.idle_task: IdleTask | None = None
        self.awake = False
        self.idle_from = 0.0

    def serve(self) -> None:
        """Process jobs until the queue is closed."""
        try:
            self._serve()
        finally:
            if self.idle_task is not None:
                self.idle_task.end()

    def _serve(self) -> None:
        queue = self._queue
        while True:
            self._do_calls()
            with queue._changed:
                queue._changed.wait_for(
                    lambda: bool(queue._waiting or self.calls or self.awake) or queue._closed
                )
                if self.awake and not (queue._waiting or self.calls or queue._closed):
                    delay = self.idle_from - time.monotonic()
                    queue._changed.wait_for(
                        lambda: bool(queue._waiting or self.calls) or queue._closed, delay
                    )
                if self.calls:
                    continue
                job = self.current = queue._waiting.popleft() if queue._waiting else None
                if job is None:
                    if queue._closed:
                        return
                    self.awake = False  # a later call of wake sets it again
            if job is None:
                if self.idle_task is not None and self.idle_task.work():
                    queue.wake()
                continue
            failure: BaseException | None = None
            started = queue._clock()
            try:
                self._run(job)
            except BaseException as error:
                failure = error
            with queue._changed:
                self.current = None
                queue._durations.append((queue._clock() - started) / len(job.requests))
            self.idle_from = time.monotonic() + IDLE_DELAY
            job.finish(failure)
            del job, failure  # release the results now, not when the next job arrives

    def _run(self, job: Job) -> None:
        with closing(self._work(job.requests, job.sketches)) as events:
            for event in events:
                if isinstance(event, Progress):
                    job.add_event(event)
                    self._do_calls()
                    if job.cancelled:
                        raise Cancelled
                    continue
                job.add_outcome(event)
                if len(job.made) == len(job.requests):
                    return
        raise RuntimeError("the work function ended without an outcome for every request")

    def _do_calls(self) -> None:
        while True:
            with self._queue._changed:
                if not self.calls:
                    return
                function, future = self.calls.popleft()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            self.idle_from = time.monotonic() + IDLE_DELAY
