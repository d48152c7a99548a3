"""Make the README's picture from the fitted test field: python -m benchmarks.picture [assets/stairs.png]

From left to right: the surface on its grid, simplified to a twelfth of its faces with the normal map that
keeps its look, the textured result from two sides, and its texture.
"""

from __future__ import annotations

import io
import sys

import numpy as np
from PIL import Image

from tests.fields_for_tests import mushroom
from triplaneturbo.files import write_whole
from triplaneturbo.mesh.clean import tidy
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import frame, render, sheet
from triplaneturbo.mesh.simplify import simplify
from triplaneturbo.mesh.sparse import extract
from triplaneturbo.mesh.texture import bake
from triplaneturbo.mesh.unwrap import unwrap

SIDE = 300
RESOLUTION = 160


def main() -> None:
    """Make the picture and write it."""
    path = sys.argv[1] if len(sys.argv) > 1 else "assets/stairs.png"
    field = mushroom()
    surface = extract(field, RESOLUTION)
    fine = tidy(Mesh(surface.vertices, surface.faces))
    coarse, _ = simplify(fine, len(fine.faces) // 12)
    mesh = bake(unwrap(coarse, "fast", 1024), field, 1024, cell=2 / (RESOLUTION - 1))

    def view(shown: Mesh, azimuth: float) -> np.ndarray:
        return render(shown, frame(fine.vertices, azimuth, 20.0), SIDE)

    atlas = Image.fromarray(np.asarray(mesh.texture)).resize((SIDE - 40, SIDE - 40), Image.Resampling.LANCZOS)
    framed = Image.new("RGB", (SIDE, SIDE), "white")
    framed.paste(atlas, (20, 20))
    images = [
        view(fine, 30),
        view(mesh.replace(texture=None), 30),
        view(mesh, 30),
        view(mesh, 150),
        np.asarray(framed),
    ]
    buffer = io.BytesIO()
    Image.fromarray(sheet(images, len(images))).save(buffer, "PNG", optimize=True)
    write_whole(path, buffer.getvalue())
    print(f"{path}: {len(fine.faces)} faces, simplified to {len(mesh.faces)}")


if __name__ == "__main__":
    main()
