"""The world's command line: `python -m triplaneturbo.world COMMAND`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from io import BytesIO
from pathlib import Path

from PIL import Image

from triplaneturbo.errors import UserError
from triplaneturbo.files import write_whole


def _look(options: argparse.Namespace) -> None:
    from triplaneturbo.world.look import look
    from triplaneturbo.world.things import THINGS

    unknown = [name for name in options.things if name not in THINGS]
    if unknown:
        raise UserError(f"There is no class called {unknown[0]!r}: choose from {', '.join(THINGS)}.")
    things = [THINGS[name] for name in options.things or THINGS]
    buffer = BytesIO()
    Image.fromarray(look(things, options.size)).save(buffer, "PNG")
    print(write_whole(options.to, buffer.getvalue()))


def _keys() -> list:
    from triplaneturbo.world.combinations import all_specs

    return list(dict.fromkeys((spec.thing, spec.support) for spec in all_specs()))


def _pool(options: argparse.Namespace) -> None:
    from triplaneturbo.world.pool import make_pool

    make_pool(options.folder / "pool", _keys(), lambda line: print(line, flush=True), options.processes)


def _pretrain(options: argparse.Namespace) -> None:
    from triplaneturbo.parallel import run
    from triplaneturbo.world.pretrain import pretrain

    _pool(options)
    arguments = (options.folder, _keys(), options.vae_steps, options.unet_steps, options.batch)
    run(pretrain, arguments, options.processes, options.device)


def _train(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from triplaneturbo.parallel import run
    from triplaneturbo.world.train import SMALL, train

    _pretrain(options)
    settings = replace(SMALL, iterations=options.iterations, batch=options.prompts)
    until = time.monotonic() + 60 * options.minutes
    run(train, (options.folder, _keys(), settings, until), options.processes, options.device)


def _clip(options: argparse.Namespace) -> None:
    from triplaneturbo.parallel import run
    from triplaneturbo.world.clip import train_clip

    _pool(options)
    arguments = (options.folder, _keys(), options.steps, options.batch)
    run(train_clip, arguments, options.processes, options.device)


def _add_run(sub: argparse.ArgumentParser) -> None:
    """What the long commands have in common."""
    sub.add_argument("--folder", type=Path, default=Path("runs/small"), help="of the run; it is gone on with")
    sub.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu")


def _add_pretrain(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--vae-steps", type=int, default=1300)
    sub.add_argument("--unet-steps", type=int, default=3000)
    sub.add_argument("--batch", type=int, default=32, help="pictures a step and process")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m triplaneturbo.world", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("look", help="draw classes of the world")
    sub.add_argument("things", nargs="*", metavar="CLASS", help="names of classes; all if none is given")
    sub.add_argument("--to", type=Path, default=Path("world.png"))
    sub.add_argument("--size", type=int, default=96, help="pixels a picture")
    sub.set_defaults(run=_look)
    sub = commands.add_parser("pool", help="draw every solid from every camera, once")
    _add_run(sub)
    sub.set_defaults(run=_pool)
    sub = commands.add_parser("pretrain", help="train the small Stable Diffusion on the world's pictures")
    _add_run(sub)
    _add_pretrain(sub)
    sub.set_defaults(run=_pretrain)
    sub = commands.add_parser("train", help="make the built-in model from nothing")
    _add_run(sub)
    _add_pretrain(sub)
    sub.add_argument("--iterations", type=int, default=3000)
    sub.add_argument("--prompts", type=int, default=4, help="prompts an iteration and process")
    sub.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop then; the same command goes on"
    )
    sub.set_defaults(run=_train)
    sub = commands.add_parser("clip", help="train the judge of `score` on the world's pictures and captions")
    _add_run(sub)
    sub.add_argument("--steps", type=int, default=1600)
    sub.add_argument("--batch", type=int, default=64, help="objects a step and process, each seen four times")
    sub.set_defaults(run=_clip)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
