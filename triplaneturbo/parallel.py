"""Several processes that train one model: gradients are averaged, everything else is done by each of them.

On two CPU cores two processes of one thread beat one process of two threads; on several GPUs it is the same
code with a device each. Every process computes the same sums in the same order, so runs repeat bit for bit.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from triplaneturbo.errors import UserError
from triplaneturbo.files import write_whole


@dataclass(frozen=True)
class Team:
    """Which of how many processes this is, and where it computes."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this is the process that logs and writes files."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; all must have the same ones."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.size
        return value

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            dist.barrier()


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
    errors than a UserError it is torch's ProcessRaisedException that has the text.
    """
    if processes == 1:
        function(Team(device=torch.device(device)), *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.spawn(_enter, (os.getpid(), function, arguments, processes, device, folder), processes)
        except mp.ProcessRaisedException:
            told = Path(folder) / "told"
            if told.exists():
                raise UserError(told.read_text(encoding="utf-8")) from None
            raise


def _follow(parent: int) -> None:
    """End this process when its parent has ended, however that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _enter(rank: int, parent: int, function, arguments, processes: int, device: str, folder: str) -> None:
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    else:
        torch.cuda.set_device(rank)
        device = f"{device}:{rank}"
    backend = "gloo" if device == "cpu" else "nccl"
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    try:
        function(Team(rank, processes, torch.device(device)), *arguments)
    except UserError as error:
        write_whole(Path(folder) / "told", str(error).encode())  # only a text finds its way to the parent
        raise
    finally:
        dist.destroy_process_group()
