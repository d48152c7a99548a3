"""The command line: `python -m triplaneturbo generate "a red mushroom" -o mushroom.glb`.

Exit codes: 0 done; 1 doctor found something to mend, standard output could not be written, or a bug (with its
traceback); 2 bad input, one sentence on standard error; 3 the model found no surface; 130 interrupted; 141
(killed by SIGPIPE) the reader of the output has gone. Nothing heavy is imported before a command's arguments
are known to be good.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from triplaneturbo import __version__
from triplaneturbo.cli import (
    BAD_INPUT,
    DONE,
    INTERRUPTED,
    NO_SURFACE,
    Terminated,
    doctor,
    download,
    embed,
    finetune,
    generate,
    serve,
    standard_streams,
    words,
)
from triplaneturbo.cli.standard_streams import BROKEN_PIPE, OutputError
from triplaneturbo.errors import EmptySurfaceError, UserError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        message = " ".join(message.split())
        self.exit(BAD_INPUT, f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.\n")


def parser() -> Parser:
    """The parser of all commands; each sets `run`, a function of its arguments that gives the exit code."""
    top = Parser(
        prog="python -m triplaneturbo",
        description="A sentence becomes a UV-textured mesh.",
        epilog="Exit codes: 0 done, 1 something to mend, 2 bad input, 3 no surface found, 130 interrupted.",
    )
    top.add_argument("--version", action="version", version=f"triplaneturbo {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (generate, finetune, embed, serve, download, words, doctor):
        name = command.__name__.rpartition(".")[2]
        summary = (command.__doc__ or "").partition("\n")[0]
        sub = commands.add_parser(name, help=summary, description=summary)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command and give its exit code; bad usage, --help and --version leave by SystemExit."""
    arguments = parser().parse_args(argv)
    limit_openmp_spinning()
    return run_reporting_errors(lambda: arguments.run(arguments), "Interrupted; no incomplete file was left.")


def limit_openmp_spinning() -> None:
    """Let torch's threads wait for each other but briefly before they sleep; to be called before its import.

    Left alone, OpenMP's threads spin for milliseconds at every barrier: where something else wants a core too
    (a browser that draws the page, say) a mesh takes six times as long. On idle cores this costs a tenth.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def run_reporting_errors(action: Callable[[], int], farewell: str) -> int:
    """Do `action` and give its exit code; what a person can mend is said in one sentence."""

    def interrupt(*_: object) -> NoReturn:
        if _torch_is_imported():
            print(farewell, file=sys.stderr)
            exit_process(INTERRUPTED)
        _interrupt()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        return action()
    except EmptySurfaceError as error:
        print(error, file=sys.stderr)
        return NO_SURFACE
    except UserError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(farewell, file=sys.stderr)
        return INTERRUPTED
    except Terminated:
        exit_process(DONE, at_once=True)
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, before)


def _torch_is_imported() -> bool:
    """Whether that is under way: what is raised meanwhile may pass through C++, and end in an abort."""
    loaded = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "torch"]
    return any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in loaded)


def _interrupt(*_: object) -> NoReturn:
    """Raise KeyboardInterrupt, and again in half a second unless `run_reporting_errors` has stopped that.

    One alone can be lost: Python drops what is raised in a destructor, and importing torch calls many.
    """
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
    raise KeyboardInterrupt


def enter(action: Callable[[], int]) -> NoReturn:
    """Run the process's main function and end the process with the exit code that it returns."""
    standard_streams.prepare()
    try:
        code = action()
    except SystemExit as leaving:  # by argparse, whose --help may have lost its reader too
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except OutputError as error:
        code = standard_streams.explain(error)
    exit_process(code)


def exit_process(code: int, at_once: bool = False) -> NoReturn:
    """End the process.

    Args:
        at_once: without waiting for threads, as after an interrupt: one may be in the middle of a long
            product, and to end it would abort.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # there is nothing left to interrupt
    code = standard_streams.exit_code(code)
    sys.stderr.flush()
    if code == BROKEN_PIPE:
        standard_streams.die_of_broken_pipe()
    if at_once or code == INTERRUPTED:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    enter(main)
