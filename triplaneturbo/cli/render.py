"""render a mesh file as a turntable animation and as a still image"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from triplaneturbo.cli import DONE
from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

SUFFIXES = (".glb", ".obj", ".zip", ".ply", ".stl", ".off")
OUTPUTS = (".webp", ".mp4", ".png")
SIZES = (16, 2048)
FRAMES = (2, 360)
SECONDS = (0.1, 60.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("file", metavar="FILE", help=f"the mesh: {', '.join(SUFFIXES)}")
    add(
        "-o",
        "--output",
        nargs="+",
        metavar="PATH",
        help="an animation (.webp, or .mp4 with PyAV or ffmpeg), a still image (.png), or several; default: a"
        " .webp and a .png beside FILE",
    )
    add("--size", type=int, default=512, metavar="N", help="pixels per side, 16 to 2048, default 512")
    add("--frames", type=int, default=48, metavar="N", help="frames of one turn, 2 to 360, default 48")
    add("--seconds", type=float, default=4.0, metavar="S", help="duration of one turn, default 4")
    add(
        "--background",
        metavar="RRGGBB",
        help="colour of the background; default: transparent, white in an .mp4",
    )
    add("--quiet", action="store_true", help="do not print the paths")


def run(arguments: argparse.Namespace) -> int:
    """Render the file; print the path of each output.

    Raises:
        UserError: an option is invalid, the file cannot be read, or an output cannot be written.
    """
    source = Path(os.path.expanduser(arguments.file))
    if source.suffix.lower() not in SUFFIXES:
        raise UserError(f"Cannot render {shown(arguments.file)}; use a file ending in {', '.join(SUFFIXES)}.")
    outputs = [Path(os.path.expanduser(path)) for path in arguments.output or ()]
    outputs = outputs or [source.with_suffix(".webp"), source.with_suffix(".png")]
    for output in outputs:
        if output.suffix.lower() not in OUTPUTS:
            raise UserError(f"Cannot write {shown(str(output))}; use a name ending in {', '.join(OUTPUTS)}.")
    _check_range("size", arguments.size, SIZES)
    _check_range("number of frames", arguments.frames, FRAMES)
    _check_range("duration", arguments.seconds, SECONDS)
    background = None if arguments.background is None else _color(arguments.background)
    mp4 = any(output.suffix.lower() == ".mp4" for output in outputs)
    if mp4 and arguments.size % 2:
        raise UserError(f"Invalid size {arguments.size} for .mp4; use an even number.")

    from triplaneturbo.mesh.io.common import encode_image
    from triplaneturbo.mesh.io.reader import load_mesh
    from triplaneturbo.mesh.preview import WHITE, animation, thumbnail, turntable
    from triplaneturbo.mesh.video import can_encode_mp4, encode_mp4
    from triplaneturbo.utils.atomic_files import write_atomically

    if mp4 and not can_encode_mp4():
        raise UserError("MP4 needs PyAV (pip install av) or the program ffmpeg; install one, or use .webp.")
    mesh = load_mesh(source)
    if mesh is None:
        raise UserError(f"{shown(arguments.file)} has no faces; choose another file.")
    for output in outputs:
        kind = output.suffix.lower()
        if kind == ".png":
            data = encode_image(thumbnail(mesh, arguments.size, background), "png")
        elif kind == ".webp":
            frames = turntable(mesh, arguments.frames, arguments.size, background)
            data = animation(frames, seconds=arguments.seconds)
        else:
            frames = turntable(mesh, arguments.frames, arguments.size, background or WHITE)
            data = encode_mp4(frames, arguments.frames / arguments.seconds)
        write_atomically(output, data)
        if not arguments.quiet:
            print(output)
    return DONE


def _check_range(name: str, value: float, limits: tuple[float, float]) -> None:
    if not limits[0] <= value <= limits[1]:
        raise UserError(f"Invalid {name} {value:g}; use {limits[0]:g} to {limits[1]:g}.")


def _color(text: str) -> tuple[int, int, int]:
    """Parse RRGGBB, with or without "#". Raise UserError if it is invalid."""
    digits = text.removeprefix("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise UserError(f"Invalid background {shown(text)}; use six digits such as ffffff.") from None
    return red, green, blue
