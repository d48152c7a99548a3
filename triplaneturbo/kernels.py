"""How loops are compiled: numba, kept on disk between runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` at its first call; the machine code is cached beside the source for later runs.

    Where nothing can be written (a read-only installation without a home folder) it is compiled anew in
    each process instead. Kernels release the GIL and divide as numpy does.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # numba found no folder for its cache
        return numba.njit(function, **options)
