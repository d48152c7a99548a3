"""Exceptions that users can act on, and control-flow exceptions of the engine."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can correct.

    The message says what is wrong and what to do. The command line prints it and exits with a non-zero
    status; the page shows it. Any other exception is a bug.
    """


class EmptySurfaceError(UserError):
    """The generated field has no surface, which can happen for a valid prompt."""

    def __init__(self) -> None:
        super().__init__("The model found no surface for this prompt; try another seed.")

    def __reduce__(self) -> tuple[type[EmptySurfaceError], tuple[()]]:
        return EmptySurfaceError, ()


class QueueFullError(UserError):
    """The queue has reached its limit of waiting requests.

    Attributes:
        seconds: estimated time in seconds until the waiting requests have started.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"The queue is full; try again in {seconds} s.")
        self.seconds = seconds

    def __reduce__(self) -> tuple[type[QueueFullError], tuple[int]]:
        return QueueFullError, (self.seconds,)


class Cancelled(Exception):
    """The request was cancelled by its user."""


class EngineClosedError(RuntimeError):
    """The engine is closed because its server is shutting down, and accepts no more requests."""

    def __init__(self) -> None:
        super().__init__("the engine is closed")
