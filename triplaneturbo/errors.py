"""The errors that a person can mend."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend.

    The message is one sentence that says what is wrong and what to do; the command line prints it and
    exits non-zero, the page shows it as it is. Anything else that is raised is a bug.
    """


class EmptySurfaceError(UserError):
    """The field has no surface: an honest result of a generation, not a failure of the program."""

    def __init__(self) -> None:
        super().__init__("The model found no surface for this prompt; try another seed.")

    def __reduce__(self) -> tuple[type[EmptySurfaceError], tuple[()]]:
        return EmptySurfaceError, ()


class QueueFullError(UserError):
    """So many requests wait already that one more is refused.

    Attributes:
        seconds: in which those that wait now will have begun, an estimate.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"The queue is full; try again in {seconds} s.")
        self.seconds = seconds

    def __reduce__(self) -> tuple[type[QueueFullError], tuple[int]]:
        return QueueFullError, (self.seconds,)


class Cancelled(Exception):
    """The request was cancelled by whoever asked for it."""


class EngineClosedError(RuntimeError):
    """The engine is closed, because its server ends, and takes no more requests."""

    def __init__(self) -> None:
        super().__init__("the engine is closed")
