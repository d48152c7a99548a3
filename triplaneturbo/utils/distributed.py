"""Data-parallel training in several processes: launching, collectives and failure handling.

Processes average gradients and otherwise run independently. On two CPU cores, two processes with one thread
are faster than one process with two threads; on several GPUs, each process has its own device. All processes
compute the same sums in the same order, so runs are bit-identical.

`run` spawns the processes on one machine; `launched` joins those that `accelerate launch` or torchrun
started, on any number of machines. If one process exits, the others exit soon after.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from triplaneturbo.errors import UserError
from triplaneturbo.utils.atomic_files import write_atomically

# Timeout of collectives, for example if another machine loses power. It must be longer than the time
# that the main process takes for previews.
_TIMEOUT = timedelta(minutes=30)


_MESSAGE_FILE = "user_error.txt"  # passes the message of a UserError to the parent process
_TRACEBACK_FILE = "traceback.txt"  # passes the traceback of another error


class WorkerLost(UserError):
    """Another process of the run has exited."""

    def __init__(self) -> None:
        super().__init__(
            "A process of the run has exited, so the others have stopped; start the run again with the same "
            "command to resume from its last checkpoint."
        )


class CollectiveError(UserError):
    """An error that all processes raise, so that only the main process needs to report it."""


@dataclass(frozen=True)
class DistributedContext:
    """The position of this process in a group of processes.

    Attributes:
        rank: index of this process.
        size: number of processes.
        device: device of this process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main_process(self) -> bool:
        """Whether this process logs and writes files."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average gradients over the processes, in place; all processes must have the same gradients.

        Raises:
            WorkerLost: another process has exited. All collectives below raise it, too.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        _collective(dist.all_reduce, flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes, on the tensor's device."""
        if self.size > 1:
            total = value.to(self.device, copy=True)
            _collective(dist.all_reduce, total)
            value = (total / self.size).to(value.device)
        return value

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the mean of each value over the processes, which must have the same keys."""
        numbers = self.mean(torch.tensor(list(values.values()), dtype=torch.float64)).tolist()
        return dict(zip(values, numbers, strict=True))

    def any(self, here: bool) -> bool:
        """Return whether `here` is true in any process; the result is the same in all processes."""
        return bool(self.mean(torch.tensor(float(here))) > 0)

    def broadcast_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Copy tensors of the main process to all processes, in place."""
        if self.size > 1:
            for tensor in tensors:
                _collective(dist.broadcast, tensor.detach(), 0)

    def wait(self) -> None:
        """Wait for all processes (barrier)."""
        if self.size > 1:
            _collective(dist.barrier)


def _collective(operation: Callable[..., Any], *arguments: Any) -> None:
    """Run a collective operation; raise WorkerLost if it fails."""
    try:
        operation(*arguments)
    except RuntimeError as error:  # torch raises only this for a broken or timed out connection
        raise WorkerLost() from error


def fill_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Set missing gradients to zero, as all processes must have the same gradients."""
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)


def run(
    function: Callable[..., None], arguments: tuple[Any, ...], processes: int, device: str = "cpu"
) -> None:
    """Call `function(context, *arguments)` in several processes and wait for them.

    A single process runs in place. With device "cuda", process k uses GPU k.

    Raises:
        UserError: a process raised it.
        ProcessRaisedException: a process raised another error, whose traceback is in the message.
        WorkerLost: a process was killed.
    """
    if processes == 1:
        function(DistributedContext(device=torch.device(device)), *arguments)
        return
    with tempfile.TemporaryDirectory(
        ignore_cleanup_errors=os.name == "nt"
    ) as folder:  # gloo may have it open
        try:
            mp.spawn(_worker, (os.getpid(), function, arguments, processes, device, folder), processes)
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            message_file = Path(folder) / _MESSAGE_FILE
            traceback_file = Path(folder) / _TRACEBACK_FILE
            if traceback_file.exists():
                raise mp.ProcessRaisedException(
                    traceback_file.read_text(encoding="utf-8"), error.error_index, error.error_pid
                ) from None
            lost = WorkerLost()
            message = message_file.read_text(encoding="utf-8") if message_file.exists() else None
            # The killed process and one that noticed it may be reported in either order.
            if message == str(lost) or (message is None and isinstance(error, mp.ProcessExitedException)):
                raise lost from None
            if message is not None:
                raise UserError(message) from None
            raise


def is_launched(environ: Mapping[str, str]) -> bool:
    """Return whether `accelerate launch` or torchrun started this process as one of several."""
    return "RANK" in environ and int(environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def launched(environ: Mapping[str, str], device: str = "cpu") -> Iterator[DistributedContext]:
    """Join the processes that a launcher started; without a launcher, yield a group of one process.

    Args:
        environ: environment with the launcher's RANK, WORLD_SIZE and LOCAL_RANK; torch reads MASTER_ADDR and
            MASTER_PORT.
        device: "cpu" (gloo backend) or "cuda" (NCCL backend; each process uses the GPU of its local rank).

    Raises:
        UserError: the other processes are unreachable.
    """
    if not is_launched(environ):
        yield DistributedContext(device=torch.device(device))
        return
    rank, size, local = (int(environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if "TORCHELASTIC_RUN_ID" in environ:  # the parent is the launcher
        threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    with _process_group("env://", rank, size, local, device) as context:
        yield context


@contextmanager
def _process_group(
    init_method: str, rank: int, size: int, local: int, device: str
) -> Iterator[DistributedContext]:
    """Initialise torch's process group and destroy it on exit."""
    if device == "cuda":
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    backend = "gloo" if device == "cpu" else "nccl"
    device_id = None if device == "cpu" else torch.device(device)
    try:
        dist.init_process_group(
            backend,
            init_method=init_method,
            rank=rank,
            world_size=size,
            timeout=_TIMEOUT,
            device_id=device_id,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"The processes of the run cannot connect to each other: {error}") from error
    try:
        yield DistributedContext(rank, size, torch.device(device))
    finally:
        dist.destroy_process_group()


def _exit_with_parent(parent: int) -> None:
    """Exit this process when its parent has exited or was killed."""
    spawner = mp.parent_process()
    if os.name == "nt" and spawner is not None:
        spawner.join()  # on Windows, getppid() still returns a parent that has exited
        os._exit(1)
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _worker(rank: int, parent: int, function, arguments, processes: int, device: str, folder: str) -> None:
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    meeting = Path(folder, "rendezvous")
    # torch decodes the percent signs of a file URL on Windows only.
    address = meeting.as_uri() if os.name == "nt" else f"file://{meeting}"
    with _process_group(address, rank, processes, rank, device) as context:
        try:
            function(context, *arguments)
        except UserError as error:
            message_file = Path(folder) / _MESSAGE_FILE
            if not isinstance(error, WorkerLost) or not message_file.exists():
                write_atomically(message_file, str(error).encode())
            raise
        except Exception:
            write_atomically(Path(folder) / _TRACEBACK_FILE, traceback.format_exc().encode())
            raise
