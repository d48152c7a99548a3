"""Registry of unwrap methods. A new one is one new file in this folder and one line in `UNWRAPPERS`.

The registry imports no method until it is called, so that the page and the queue can list the methods without
torch and numpy. The names are also in `request.UNWRAPS`, which is below this layer.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triplaneturbo.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    # (faces [F, 3], corners [F, 3, 3], neighbours [F, 3], slack) -> (uv [F, 3, 2], chart [F])
    Charts = Callable[[np.ndarray, np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Unwrapper:
    """One unwrap method.

    Attributes:
        name: as users write it, such as "fast".
        charts: cut a mesh into flat charts that neither overlap themselves nor are mirrored, as described in
            `box_projection.box_charts`; `packing.pack` arranges them. The same mesh gives the same charts.
        seconds: seconds on a slow CPU to reserve for it, beyond those of any mesh.
        package: the package that it needs, or "" for none; it may be missing.
        remedy: the command that installs the package, with its conditions.
    """

    name: str
    charts: Charts
    seconds: int = 0
    package: str = ""
    remedy: str = ""

    def is_available(self) -> bool:
        """Whether its package is installed."""
        return not self.package or importlib.util.find_spec(self.package) is not None


def _from(module: str, function: str) -> Charts:
    """A function of a module of this folder, which is imported at the first call."""

    def charts(
        faces: np.ndarray, corners: np.ndarray, neighbours: np.ndarray, slack: float
    ) -> tuple[np.ndarray, np.ndarray]:
        compute: Charts = getattr(importlib.import_module(f"{__package__}.{module}"), function)
        return compute(faces, corners, neighbours, slack)

    return charts


# In the order in which the page and the help texts list them.
UNWRAPPERS: dict[str, Unwrapper] = {
    method.name: method
    for method in (
        Unwrapper("fast", _from("box_projection", "box_charts")),
        Unwrapper("xatlas", _from("xatlas_unwrap", "xatlas_charts"), 20, "xatlas", "pip install xatlas"),
        Unwrapper(
            "uvunwrap",
            _from("uvunwrap_unwrap", "uvunwrap_charts"),
            4,
            "uvunwrap",
            "pip install uvunwrap with Python 3.11 or newer",
        ),
    )
}


def available() -> list[str]:
    """Return the names of the methods that work here."""
    return [name for name, method in UNWRAPPERS.items() if method.is_available()]


def find_unwrapper(name: str) -> Unwrapper:
    """Return a method by its name.

    Raises:
        UserError: the method is unknown, or its package is not installed.
    """
    if name not in UNWRAPPERS:
        raise UserError(f"Unknown unwrap method {name!r}; choose one of {', '.join(UNWRAPPERS)}.")
    method = UNWRAPPERS[name]
    if not method.is_available():
        raise UserError(
            f"The unwrap method {name} needs the package {method.package}, which is not installed; choose"
            f" {' or '.join(available())}, or run {method.remedy}."
        )
    return method
