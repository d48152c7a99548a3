"""Command line: `triplaneturbo generate "a red mushroom" -o mushroom.glb`, or `python -m triplaneturbo`.

Exit codes: 0 success; 1 doctor found a problem, standard output could not be written, or a bug (with a
traceback); 2 invalid input, one sentence on standard error; 3 the model found no surface; 130 interrupted;
141 (SIGPIPE) the reader of the output has exited. Heavy modules are imported only after the arguments of a
command have been checked.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from triplaneturbo import __version__
from triplaneturbo.cli import (
    BAD_INPUT,
    DONE,
    INTERRUPTED,
    NO_SURFACE,
    Terminated,
    ablate,
    doctor,
    download,
    embed,
    evaluate,
    finetune,
    generate,
    refine,
    render,
    serve,
    standard_streams,
    words,
)
from triplaneturbo.cli.standard_streams import BROKEN_PIPE, OutputError
from triplaneturbo.errors import EmptySurfaceError, UserError


class Parser(argparse.ArgumentParser):
    """ArgumentParser that reports errors in one sentence."""

    def error(self, message: str) -> NoReturn:
        message = " ".join(message.split())
        self.exit(BAD_INPUT, f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.\n")


def parser() -> Parser:
    """Return the parser of all commands; each sets `run`, a function from its arguments to an exit code."""
    top = Parser(
        prog=_program(),
        description="Generate UV-textured 3D meshes from text prompts.",
        epilog="Exit codes: 0 success, 1 problem found, 2 invalid input, 3 no surface, 130 interrupted.",
    )
    top.add_argument("--version", action="version", version=f"triplaneturbo {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    modules = (generate, refine, render, finetune, evaluate, ablate, embed, serve, download, words, doctor)
    for command in modules:
        name = command.__name__.rpartition(".")[2]
        summary = (command.__doc__ or "").partition("\n")[0]
        sub = commands.add_parser(name, help=summary, description=summary)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return top


def _program() -> str:
    """Return how the command line was called: by the console script's name or as a module."""
    name = Path(sys.argv[0]).stem
    return name if name == "triplaneturbo" else "python -m triplaneturbo"


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code; usage errors, --help and --version raise SystemExit."""
    arguments = parser().parse_args(argv)
    limit_openmp_spinning()
    return run_reporting_errors(lambda: arguments.run(arguments), "Interrupted; no incomplete file was left.")


def limit_openmp_spinning() -> None:
    """Make OpenMP threads spin only briefly at barriers, unless the user chose; call before importing torch.

    By default they spin for milliseconds at every barrier: if other programs need the cores (a browser that
    draws the page, for example), a mesh takes ten times as long. Threads that sleep at once take 1.4 times as
    long on an idle machine; see docs/benchmarks.md.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}  # libgomp prefers the latter


def run_reporting_errors(action: Callable[[], int], farewell: str) -> int:
    """Run `action` and return its exit code; report user errors and interrupts in one sentence.

    Args:
        action: returns an exit code.
        farewell: printed after an interrupt.
    """

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
    """Whether torch is being imported: an exception raised now may pass through C++ and abort the process."""
    loaded = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "torch"]
    return any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in loaded)


def _interrupt(*_: object) -> NoReturn:
    """Raise KeyboardInterrupt, and again after half a second unless `run_reporting_errors` cancels the timer.

    A single one can get lost: Python drops exceptions raised in destructors, of which importing torch calls
    many.
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
    except SystemExit as error:  # by argparse; the reader of its --help may have exited, too
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except OutputError as error:
        code = standard_streams.explain(error)
    exit_process(code)


def console_script() -> NoReturn:
    """Run the command `triplaneturbo` that the installation puts on the path."""
    enter(main)


def exit_process(code: int, at_once: bool = False) -> NoReturn:
    """Flush the standard streams and exit.

    Args:
        code: the exit code.
        at_once: exit without joining threads, as after an interrupt: one may be inside a long computation.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
    code = standard_streams.exit_code(code)
    sys.stderr.flush()
    if code == BROKEN_PIPE:
        standard_streams.die_of_broken_pipe()
    if at_once or code == INTERRUPTED:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    console_script()
