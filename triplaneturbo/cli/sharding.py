"""Sharding of a batch over several processes.

    accelerate launch --multi_gpu -m triplaneturbo generate --prompts prompts.txt -o meshes
    torchrun --nproc-per-node 2 -m triplaneturbo generate --prompts prompts.txt -o meshes

Both launchers pass each process its rank and the number of processes; several machines share the output
folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from triplaneturbo.errors import UserError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """The shard of process `rank` of `size`; `local` is its rank on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    def select(self, items: Sequence[Item], prompt: Callable[[Item], str]) -> list[Item]:
        """Return this process's items: every size-th prompt from the rank-th on, with all its items."""
        number = {text: i for i, text in enumerate(dict.fromkeys(map(prompt, items)))}
        return [item for item in items if number[prompt(item)] % self.size == self.rank]

    def device(self, requested: str | None) -> str | None:
        """Return the device to use: the requested one, otherwise one GPU per process of a machine."""
        if requested is not None or self.size == 1:
            return requested
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"cuda:{self.local % gpus}" if gpus else None


def shard_from_environment() -> Shard:
    """Read RANK, WORLD_SIZE and LOCAL_RANK of the launcher; one process if they are not set.

    Raises:
        UserError: a value is invalid.
    """
    try:
        rank, size, local = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
    except ValueError:
        rank, size, local = -1, 1, 0
    if not 0 <= rank < size or local < 0:
        raise UserError("Invalid RANK, WORLD_SIZE or LOCAL_RANK; unset them, or use accelerate launch.")
    return Shard(rank, size, local)
