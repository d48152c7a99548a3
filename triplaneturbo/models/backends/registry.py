"""Registry of inference backends. A new one is one new file in this folder and one line in `BACKENDS`."""

from __future__ import annotations

from collections.abc import Callable

from triplaneturbo.errors import UserError
from triplaneturbo.models.backends.base import Backend
from triplaneturbo.models.backends.torch_backend import TorchBackend
from triplaneturbo.models.weights import Model
from triplaneturbo.request import shown

# By name: make the backend of a loaded model.
BACKENDS: dict[str, Callable[[Model], Backend]] = {"torch": TorchBackend}


def find_backend(name: str) -> Callable[[Model], Backend]:
    """Return what makes the backend of that name.

    Raises:
        UserError: the name is unknown.
    """
    if name not in BACKENDS:
        raise UserError(f"Unknown backend {shown(name)}; use one of {', '.join(BACKENDS)}.")
    return BACKENDS[name]
