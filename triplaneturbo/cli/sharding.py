"""Which part of a batch is this process's, where several were launched for it.

    accelerate launch --multi_gpu -m triplaneturbo generate --prompts prompts.txt -o meshes
    torchrun --nproc-per-node 2 -m triplaneturbo generate --prompts prompts.txt -o meshes

Both tell every process its number and how many there are; several machines share the folder of the meshes.
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
    """Process `rank` of `size`, which on its machine is number `local`."""

    rank: int = 0
    size: int = 1
    local: int = 0

    def of(self, items: Sequence[Item], prompt: Callable[[Item], str]) -> list[Item]:
        """The items of every size-th prompt from the rank-th on, so that a prompt's stay together."""
        number = {text: i for i, text in enumerate(dict.fromkeys(map(prompt, items)))}
        return [item for item in items if number[prompt(item)] % self.size == self.rank]

    def device(self, asked: str | None) -> str | None:
        """The device to use: where none was asked for, a GPU for each process of a machine."""
        if asked is not None or self.size == 1:
            return asked
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"cuda:{self.local % gpus}" if gpus else None


def shard_from_environment() -> Shard:
    """What the launcher says in RANK, WORLD_SIZE and LOCAL_RANK; the whole batch where there is none.

    Raises:
        UserError: it says what cannot be.
    """
    try:
        rank, size, local = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
    except ValueError:
        rank, size, local = -1, 1, 0
    if not 0 <= rank < size or local < 0:
        raise UserError("RANK, WORLD_SIZE or LOCAL_RANK cannot be; unset them, or use accelerate launch.")
    return Shard(rank, size, local)
