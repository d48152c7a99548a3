"""The world's command line: `python -m triplaneturbo.world COMMAND`."""

from __future__ import annotations

import argparse
import sys
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


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m triplaneturbo.world", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("look", help="draw classes of the world")
    sub.add_argument("things", nargs="*", metavar="CLASS", help="names of classes; all if none is given")
    sub.add_argument("--to", type=Path, default=Path("world.png"))
    sub.add_argument("--size", type=int, default=96, help="pixels a picture")
    sub.set_defaults(run=_look)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
