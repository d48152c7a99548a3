"""Another program that makes a mesh of a picture."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown
from triplaneturbo.utils.atomic_files import write_atomically

if TYPE_CHECKING:
    from triplaneturbo.refine.given_image import GivenImage
    from triplaneturbo.refine.given_mesh import GivenMesh

FOLDER = "image"
TIMEOUT = 900.0  # seconds


def parsed_command(command: str) -> list[str]:
    """Split a command line into its arguments; no shell is involved.

    Raises:
        UserError: it is malformed, or lacks {image} or {mesh}.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"Cannot read --image-to-mesh {shown(command)}: {str(error).lower()}.") from None
    for place in ("{image}", "{mesh}"):
        if not any(place in word for word in words[1:]):
            raise UserError(f'--image-to-mesh lacks {place}; write "PROGRAM {{image}} {{mesh}}".')
    return words


def mesh_of(command: str, image: GivenImage, folder: Path, timeout: float = TIMEOUT) -> GivenMesh:
    """Let a program make a mesh of a picture.

    A mesh that the same command has made of the same picture in this folder is used again.

    Args:
        command: its arguments; {image} becomes the path of the cut-out, a PNG with transparency, and {mesh}
            that of the GLB file to write.
        image: the picture.
        folder: receives both files, and a record of the picture and the command.
        timeout: seconds after which the program is ended.

    Raises:
        UserError: the command is malformed, the program fails or takes too long, or its mesh is unusable.
    """
    from triplaneturbo.refine.given_mesh import read_given_mesh  # heavy

    words = parsed_command(command)
    program = shown(words[0])
    mesh, picture = folder / FOLDER / "mesh.glb", folder / FOLDER / "image.png"
    record = mesh.with_name("source.json")
    source = json.dumps({"image": image.digest, "command": command}).encode()
    if mesh.exists() and record.exists() and record.read_bytes() == source:
        return read_given_mesh(mesh)
    write_atomically(picture, image.png())
    made = mesh.with_name("unchecked.glb")
    words = [word.replace("{image}", str(picture)).replace("{mesh}", str(made)) for word in words]
    messages = mesh.with_name("messages.txt")
    try:
        # Into a file, not a pipe, which a child of an ended program could keep open.
        with messages.open("wb") as log:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=timeout, check=False
            )
    except OSError as error:
        raise UserError(f"Cannot run {program}: {(error.strerror or 'error').lower()}.") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{program} made no mesh within {timeout:.0f} s.") from None
    if done.returncode or not made.is_file():
        lines = messages.read_text(errors="replace").split("\n")
        last = next((" ".join(line.split())[:200] for line in reversed(lines) if line.strip()), "no message")
        raise UserError(f"{program} made no mesh (exit code {done.returncode}): {last}")
    given = read_given_mesh(made)
    record.unlink(missing_ok=True)  # at no time does it describe another mesh
    made.replace(mesh)
    write_atomically(record, source)
    return given
