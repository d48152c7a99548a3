"""A worker that a launcher starts: it meets the others, and the last one then stands still.

It imports little, so that the launcher's test is not mostly spent on that: python -m ... FOLDER
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

from triplaneturbo.utils.distributed import launched

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with launched(os.environ) as team:
        assert float(team.mean(torch.tensor(float(team.rank)))) == (team.size - 1) / 2
        (folder / f"pid-{team.rank}.part").write_text(str(os.getpid()))
        os.replace(folder / f"pid-{team.rank}.part", folder / f"pid-{team.rank}")
        if team.rank == team.size - 1:
            time.sleep(3600)  # until it is killed
        team.wait()
        (folder / "passed").touch()
