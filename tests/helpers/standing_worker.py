"""Worker process for the test of the launcher: joins the others; the last one then hangs.

Imports little to keep the test fast. Usage: python -m tests.helpers.standing_worker FOLDER
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
    with launched(os.environ) as context:
        assert float(context.mean(torch.tensor(float(context.rank)))) == (context.size - 1) / 2
        (folder / f"pid-{context.rank}.part").write_text(str(os.getpid()))
        os.replace(folder / f"pid-{context.rank}.part", folder / f"pid-{context.rank}")
        if context.rank == context.size - 1:
            time.sleep(3600)  # until it is killed
        context.wait()
        (folder / "passed").touch()
