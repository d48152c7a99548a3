"""Several processes that train one model: gradients are averaged, everything else is done by each of them.

On two CPU cores two processes of one thread beat one process of two threads; on several GPUs it is the same
code with a device each. Every process computes the same sums in the same order, so runs repeat bit for bit.

`run` starts the processes of one machine itself; `launched` joins those that `accelerate launch` or torchrun
started, on any number of machines. Where one process ends, however it does, the others end soon after it.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
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
from triplaneturbo.utils.atomic_files import write_whole

# So long a process waits for one that says nothing and whose connection stands: its machine may have lost its
# power. The leading one may be drawing previews meanwhile.
_PATIENCE = timedelta(minutes=30)


class WorkerLost(UserError):
    """Another process of the team has ended."""

    def __init__(self) -> None:
        super().__init__(
            "A process of the run has ended, and so have the others: start it again the same way, and it "
            "goes on from its last checkpoint."
        )


class CollectiveError(UserError):
    """What all processes of a team raise alike: it is enough that the leading one tells it."""


@dataclass(frozen=True)
class DistributedContext:
    """Which of how many processes this is, and where it computes."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that logs and writes files."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; all must have the same ones.

        Raises:
            Lost: here and below, another process has ended.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        _together(dist.all_reduce, flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes, on the device where it is."""
        if self.size > 1:
            there = value.to(self.device, copy=True)
            _together(dist.all_reduce, there)
            value = (there / self.size).to(value.device)
        return value

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each value over the processes, which must have the same keys."""
        numbers = self.mean(torch.tensor(list(values.values()), dtype=torch.float64)).tolist()
        return dict(zip(values, numbers, strict=True))

    def any(self, here: bool) -> bool:
        """Whether it is so in any of the processes; all get the same answer."""
        return bool(self.mean(torch.tensor(float(here))) > 0)

    def broadcast_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the leading process."""
        if self.size > 1:
            for tensor in tensors:
                _together(dist.broadcast, tensor.detach(), 0)

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            _together(dist.barrier)


def _together(operation: Callable[..., Any], *arguments: Any) -> None:
    """Do what all processes do at once."""
    try:
        operation(*arguments)
    except RuntimeError as error:  # all that torch says of a connection that broke or timed out
        raise WorkerLost() from error


def fill_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give zeros to parameters that no loss has reached, as all processes must have the same gradients."""
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)


def run(
    function: Callable[..., None], arguments: tuple[Any, ...], processes: int, device: str = "cpu"
) -> None:
    """Call `function(team, *arguments)` in that many processes and wait for all of them.

    One process runs in place. On "cuda" process k takes GPU k. What a process raises is raised here; of other
    errors than a UserError it is torch's ProcessRaisedException that has the text. Where one was killed, Lost
    is raised.
    """
    if processes == 1:
        function(DistributedContext(device=torch.device(device)), *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.spawn(_enter, (os.getpid(), function, arguments, processes, device, folder), processes)
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            told = Path(folder) / "told"
            if told.exists():
                raise UserError(told.read_text(encoding="utf-8")) from None
            if isinstance(error, mp.ProcessExitedException):
                raise WorkerLost() from None
            raise


def is_launched(environ: Mapping[str, str]) -> bool:
    """Whether `accelerate launch` or torchrun started this process as one of several."""
    return "RANK" in environ and int(environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def launched(environ: Mapping[str, str], device: str = "cpu") -> Iterator[DistributedContext]:
    """The team of processes of which a launcher started this one; a team of one where none did.

    Args:
        environ: the process's environment, where the launcher left word (RANK, WORLD_SIZE, LOCAL_RANK; torch
            itself reads MASTER_ADDR and MASTER_PORT).
        device: "cpu", where processes talk by gloo, or "cuda", where each takes the GPU of its local rank and
            talks by NCCL.

    Raises:
        UserError: the others cannot be reached.
    """
    if not is_launched(environ):
        yield DistributedContext(device=torch.device(device))
        return
    rank, size, local = (int(environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if "TORCHELASTIC_RUN_ID" in environ:  # the parent is the launcher, which nobody else would outlive
        threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    with _joined("env://", rank, size, local, device) as team:
        yield team


@contextmanager
def _joined(meeting: str, rank: int, size: int, local: int, device: str) -> Iterator[DistributedContext]:
    """The team of those that meet at a place which torch's process groups know."""
    if device == "cuda":
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    backend = "gloo" if device == "cpu" else "nccl"
    own = None if device == "cpu" else torch.device(device)
    try:
        dist.init_process_group(
            backend, init_method=meeting, rank=rank, world_size=size, timeout=_PATIENCE, device_id=own
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"The processes of the run do not find each other: {error}") from error
    try:
        yield DistributedContext(rank, size, torch.device(device))
    finally:
        dist.destroy_process_group()


def _follow(parent: int) -> None:
    """End this process when its parent has ended, however that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _enter(rank: int, parent: int, function, arguments, processes: int, device: str, folder: str) -> None:
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    with _joined(f"file://{folder}/meeting", rank, processes, rank, device) as team:
        try:
            function(team, *arguments)
        except UserError as error:
            told = Path(folder) / "told"  # only a text finds its way to the parent
            if not isinstance(error, WorkerLost) or not told.exists():
                write_whole(told, str(error).encode())
            raise
