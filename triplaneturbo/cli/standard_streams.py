"""Robust standard streams: closed, full or broken ones, and encodings that lack a character."""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import sys
from typing import Any

from triplaneturbo.cli import OUTPUT_LOST

BROKEN_PIPE = 141  # 128 + SIGPIPE: exit code of a program whose reader has exited
_ESCAPE = "triplaneturbo.escape"


class OutputError(OSError):
    """Standard output cannot be written."""


class _Stream(io.FileIO):
    """File descriptor whose first failed write raises OutputError if required; later ones are dropped.

    Attributes:
        failure: the error that was raised, if any.
    """

    failure: OutputError | None = None

    def __init__(self, descriptor: int, required: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.required = required

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self.required and self.failure is None:
                self.failure = OutputError(error.errno, error.strerror)
                raise self.failure from None
            return memoryview(data).nbytes


def prepare() -> None:
    """Replace the process's standard streams by ones with defined errors.

    Standard error never fails: output that cannot be written is dropped. Standard output raises OutputError.
    Characters that the encoding lacks are escaped; undecodable bytes of paths are written unchanged.
    """
    codecs.register_error(_ESCAPE, _escape)
    _reopen(0, "stdin", os.O_RDONLY)
    # Opened for reading, so that writes to a closed standard output fail as they do in other programs.
    _reopen(1, "stdout", os.O_RDONLY)
    _reopen(2, "stderr", os.O_WRONLY)
    sys.stdout = _wrapped(sys.stdout, required=True)
    sys.stderr = _wrapped(sys.stderr, required=False)


def tolerate_lost_output() -> None:
    """Ignore write errors of standard output from now on, as a server should if its log is full."""
    raw = _raw(sys.stdout)
    if isinstance(raw, _Stream):
        raw.required = False


def exit_code(code: int) -> int:
    """Flush standard output and return `code`, or the code for lost output."""
    try:
        sys.stdout.flush()
    except OutputError as error:
        return explain(error)
    failure = getattr(_raw(sys.stdout), "failure", None)
    return explain(failure) if failure is not None and code == 0 else code


def explain(error: OutputError) -> int:
    """Report lost output in one sentence, unless its reader has exited, and return the exit code."""
    if error.errno == errno.EPIPE or (os.name == "nt" and error.errno == errno.EINVAL):
        return BROKEN_PIPE
    print(f"Cannot write to standard output: {error.strerror}.", file=sys.stderr)
    return OUTPUT_LOST


def die_of_broken_pipe() -> None:
    """Exit by SIGPIPE, as other programs do when their reader has exited, if the platform has the signal."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)


def _reopen(descriptor: int, name: str, flags: int) -> None:
    """Reopen a descriptor that was closed at start, so that no other file gets its number."""
    if getattr(sys, name) is not None:
        return
    opened = os.open(os.devnull, flags)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)
    stream = os.fdopen(descriptor, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False)
    setattr(sys, name, stream)


def _wrapped(stream: Any, required: bool) -> Any:
    """Wrap a stream's descriptor in `_Stream`, unless it is not a file, pipe or terminal."""
    raw = _raw(stream)
    if type(raw) is not io.FileIO:  # replaced by a test, or a console of Windows
        return stream
    own = _Stream(raw.fileno(), required)
    unbuffered = stream.buffer is raw
    return io.TextIOWrapper(
        own if unbuffered else io.BufferedWriter(own),
        encoding=stream.encoding,
        errors=_ESCAPE,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _raw(stream: object) -> object:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _escape(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return b"".join(
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace")
        for c in text
    ), error.end
