"""JobQueue: order, cancellation, errors. The work is fake, so that the tests decide when a step ends."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence

import pytest
import torch

from tests.helpers.pace import patience, until
from triplaneturbo.errors import Cancelled, EmptySurfaceError, QueueFullError, UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import Dropped
from triplaneturbo.pipeline import Outcome, Progress, Result
from triplaneturbo.request import Request
from triplaneturbo.serving.job_queue import INITIAL_ESTIMATE, Job, JobQueue


class Work:
    """Fake work: three logged steps per request, which wait for `gate` if the prompt is "gated".

    There is no surface for "nothing".
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.log: list[str] = []

    def __call__(
        self, requests: Sequence[Request], sketches: str
    ) -> Generator[Progress | Outcome, None, None]:
        for request in requests:
            yield from self._one(request)

    def _one(self, request: Request) -> Generator[Progress | Outcome, None, None]:
        try:
            for step in range(3):
                if request.prompt == "gated":
                    self.gate.wait(patience(20))
                if request.prompt == "broken":
                    raise ZeroDivisionError("broken")
                if request.prompt == "refused":
                    raise UserError("Say something else.")
                self.log.append(f"{request.prompt} {request.seed} step {step}")
                yield Progress("denoise", step / 3, 0.0, step, 3)
        finally:
            self.log.append(f"{request.prompt} {request.seed} closed")
        if request.prompt == "nothing":
            yield EmptySurfaceError()
            return
        mesh = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
        yield Result(mesh, request, {"total": 0.0}, 1, Dropped())


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def queue(work: Work) -> Iterator[JobQueue]:
    queue = JobQueue([work], "test")
    yield queue
    work.gate.set()
    assert queue.close(patience(20))


def _step(number: int, glb: bytes | None = None) -> Progress:
    return Progress("denoise", 0.0, 0.0, number, 9, glb=glb)


def test_quick_events_are_merged_except_sketches(queue: JobQueue) -> None:
    job = Job([Request("a cup")], queue)
    for number in range(6):
        job.add_event(_step(number, b"glTF" if number in (1, 3) else None))
    job.finish()
    assert [event.step for event in job.events(min_interval=20)] == [1, 3, 5]
    assert [event.step for event in job.events()] == list(range(6))


def test_delayed_event_is_delivered(queue: JobQueue) -> None:
    job = Job([Request("a cup")], queue)
    job.add_event(_step(0))
    events = job.events(min_interval=0.3)
    assert next(events).step == 0
    job.add_event(_step(1))
    job.add_event(_step(2))
    assert next(events).step == 2  # and nothing else has come meanwhile
    job.add_event(_step(3))
    job.add_event(_step(4, b"glTF"))
    assert next(events).step == 4  # a sketch is not waited with
    job.finish()
    assert list(events) == []


def test_several_workers_serve_one_queue() -> None:
    works = [Work(), Work()]
    queue = JobQueue(works, "test")
    jobs = [queue.submit(Request("gated", seed=seed)) for seed in range(3)]
    until(lambda: len(queue._waiting) == 1)
    assert [job.position for job in jobs] == [0, 0, 1]
    for work in works:
        work.gate.set()
    assert [job.result(patience(20)).request.seed for job in jobs] == [0, 1, 2]
    assert all(work.log for work in works)  # each had its part
    names = [queue.call(lambda: threading.current_thread().name, number) for number in range(2)]
    assert names == ["test 0", "test 1"]
    assert queue.close(patience(20))


def test_jobs_run_in_order_of_submission(queue: JobQueue, work: Work) -> None:
    jobs = [queue.submit(Request("a cup", seed=seed)) for seed in range(4)]
    assert [job.result(patience(20)).request.seed for job in jobs] == [0, 1, 2, 3]
    assert [entry for entry in work.log if entry.endswith("step 0")] == [
        f"a cup {seed} step 0" for seed in range(4)
    ]


def test_every_listener_receives_all_events(queue: JobQueue) -> None:
    job = queue.submit(Request("a cup"))
    live = [event.step for event in job.events()]
    assert live == [0, 1, 2]
    assert job.done
    assert [event.step for event in job.events()] == live


def test_queue_position_counts_down(queue: JobQueue, work: Work) -> None:
    first, second, third = (queue.submit(Request("gated", seed=seed)) for seed in range(3))
    assert second.position == 1
    assert third.position == 2
    second.cancel()
    assert third.position == 1
    assert second.position is None
    work.gate.set()
    third.result(patience(20))
    assert first.position is third.position is None


def test_cancelled_waiting_job_ends_at_once(queue: JobQueue, work: Work) -> None:
    running, waiting = queue.submit(Request("gated")), queue.submit(Request("a cup", seed=7))
    waiting.cancel()
    assert waiting.done
    with pytest.raises(Cancelled):
        waiting.result(0)
    work.gate.set()
    running.result(patience(20))
    assert not any(entry.startswith("a cup 7") for entry in work.log)


def test_cancelled_running_job_ends_within_one_step(queue: JobQueue, work: Work) -> None:
    job = queue.submit(Request("gated"))
    job.cancel()  # before the first of its three steps has ended
    work.gate.set()
    with pytest.raises(Cancelled):
        job.result(patience(20))
    steps = [entry for entry in work.log if "step" in entry]
    assert len(steps) <= 1
    assert queue.submit(Request("a cup")).result(patience(20))


@pytest.mark.parametrize(("prompt", "error"), [("broken", ZeroDivisionError), ("refused", UserError)])
def test_job_errors_do_not_stop_the_worker(queue: JobQueue, prompt: str, error: type) -> None:
    job = queue.submit(Request(prompt))
    assert list(job.events()) == []
    with pytest.raises(error):
        job.result(patience(20))
    assert queue.submit(Request("a cup")).result(patience(20)).request.prompt == "a cup"


def test_job_with_several_requests(queue: JobQueue) -> None:
    job = queue.submit(Request("a cup", seed=1), Request("nothing"), Request("a hat", seed=2))
    assert len(list(job.events())) == 9
    first, missing, last = job.results(patience(20))
    assert (first.request.prompt, last.request.prompt) == ("a cup", "a hat")
    assert isinstance(missing, EmptySurfaceError)
    assert job.made == [first, missing, last]
    assert job.result(0) is first
    with pytest.raises(EmptySurfaceError):
        queue.submit(Request("nothing"), Request("a cup")).result(patience(20))


def test_results_before_a_cancellation_are_kept(queue: JobQueue, work: Work) -> None:
    job = queue.submit(Request("a cup"), Request("gated"))
    for event in job.events():
        if event.step == 2 and not job.cancelled:
            job.cancel()
            work.gate.set()
    with pytest.raises(Cancelled):
        job.results(patience(20))
    assert len(job.made) <= 1
    assert all(made.request.prompt == "a cup" for made in job.made)


def test_result_times_out(queue: JobQueue) -> None:
    with pytest.raises(TimeoutError):
        queue.submit(Request("gated")).result(0.01)


def _busy(queue: JobQueue) -> Job:
    """A running job that ends when the gate opens."""
    job = queue.submit(Request("gated"))
    until(lambda: not queue._waiting)
    return job


def test_full_queue_error_estimates_the_wait(work: Work) -> None:
    queue = JobQueue([work], "test", size=3)
    running = _busy(queue)
    waiting = [queue.submit(Request("a cup")), queue.submit(Request("a cup"), Request("a hat"))]
    with pytest.raises(
        QueueFullError, match=rf"^The queue is full; try again in {3 * INITIAL_ESTIMATE:.0f} s\.$"
    ):
        queue.submit(Request("a hat"))
    waiting[0].cancel()
    waiting.append(queue.submit(Request("a hat")))  # there is room again
    with pytest.raises(QueueFullError):
        queue.submit(Request("a hat"))
    work.gate.set()
    for job in [running, waiting[1], waiting[2]]:
        assert all(not isinstance(outcome, UserError) for outcome in job.results(patience(20)))
    assert queue.close(patience(20))


def test_queue_without_waiting_jobs_accepts_a_larger_job(work: Work) -> None:
    queue = JobQueue([work], "test", size=2)
    running = _busy(queue)
    several = queue.submit(*(Request("a cup", seed=seed) for seed in range(4)))
    work.gate.set()
    assert running.result(patience(20))
    assert len(several.results(patience(20))) == 4
    assert queue.close(patience(20))


@pytest.mark.parametrize(("workers", "seconds"), [(1, 14), (2, 7)])
def test_wait_is_estimated_from_recent_jobs(workers: int, seconds: int) -> None:
    works = [Work() for _ in range(workers)]
    queue = JobQueue(works, "test", size=2, clock=iter([number * 7.0 for number in range(100)]).__next__)
    queue.submit(Request("a cup")).result(patience(20))
    until(lambda: len(queue._durations) == 1)
    for _ in range(workers):
        _busy(queue)
    queue.submit(Request("a cup"))
    queue.submit(Request("a cup"))
    with pytest.raises(QueueFullError) as info:
        queue.submit(Request("a cup"))
    assert info.value.seconds == seconds
    for work in works:
        work.gate.set()
    assert queue.close(patience(20))


def test_closing_cancels_all_jobs(work: Work) -> None:
    queue = JobQueue([work], "test")
    jobs = [queue.submit(Request("gated", seed=seed)) for seed in range(3)]
    work.gate.set()
    assert queue.close(patience(20))
    outcomes = []
    for job in jobs:
        try:
            outcomes.append(job.result(patience(20)).request.seed)
        except Cancelled:
            outcomes.append(-1)
    assert outcomes[-1] == -1
    with pytest.raises(RuntimeError, match="closed"):
        queue.submit(Request("a cup"))


class Pieces:
    """Idle task with a given number of pieces, which are logged together with the requests' steps."""

    def __init__(self, log: list[str], left: int, gate: threading.Event | None = None) -> None:
        self.log, self.left, self.gate = log, left, gate
        self.begun = threading.Event()
        self.ended: list[str] = []

    def work(self) -> bool:
        self.begun.set()
        if self.gate is not None:
            self.gate.wait(patience(20))
        self.left -= 1
        self.log.append(f"piece, {threading.current_thread().name}")
        return self.left > 0

    def end(self) -> None:
        self.ended.append(threading.current_thread().name)


def test_idle_task_waits_for_jobs_and_calls(work: Work) -> None:
    gate = threading.Event()
    pieces = Pieces(work.log, 3, gate)
    queue = JobQueue([work], "test")
    queue.set_idle_task(pieces)
    queue.wake()
    assert pieces.begun.wait(patience(20))
    jobs = [queue.submit(Request("a cup", seed=seed)) for seed in range(2)]
    gate.set()
    for job in jobs:
        assert job.result(patience(20))
    queue.call(lambda: work.log.append("call"))
    until(lambda: pieces.left == 0)
    piece = "piece, test 0"
    told = [entry for entry in work.log if entry in (piece, "call") or entry.endswith("step 0")]
    assert told == [piece, "a cup 0 step 0", "a cup 1 step 0", "call", piece, piece]
    assert not pieces.ended
    assert queue.close(patience(20))
    assert pieces.ended == ["test 0"]


def test_idle_task_is_closed_and_restarted(work: Work) -> None:
    pieces = Pieces(work.log, 1)
    queue = JobQueue([work, Work()], "test")
    queue.set_idle_task(pieces)
    for left in (1, 1_000_000):
        pieces.left = left
        queue.wake()
        until(lambda: pieces.left < left)  # noqa: B023
    assert set(work.log) == {"piece, test 1"}  # the last thread's
    assert queue.close(patience(20))
    assert pieces.ended == ["test 1"]
