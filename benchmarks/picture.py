"""Create the images of README and page with the built-in model: python -m benchmarks.picture [assets]

`gallery.png`: results of some prompts; in the last row, three of them with other looks. `stairs.png`,
from left to right: the extracted surface, simplified to a sixth of its faces with a normal map, the
textured result from two sides, and its texture. `first_visit.webp`: the examples of the page, side by side.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import frame, render, sheet, thumbnail
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.weights import load_model
from triplaneturbo.pipeline import Pipeline
from triplaneturbo.toyworld.scoring.score_report import with_caption
from triplaneturbo.ui.generate import first_visit
from triplaneturbo.utils.atomic_files import write_atomically

PROMPTS = (
    "a red mushroom",
    "a yellow duck on a brown box",
    "a white house with a blue roof",
    "a tall green cactus",
    "a striped orange fish",
    "a blue rocket",
    "a purple teapot",
    "a brown chair",
    "a spotted pink cat",
    "a green car",
    "a checkered red mug",
    "a grey castle",
    "a white rabbit",
    "a small yellow submarine",
    "a black guitar",
    "an orange pumpkin on a blue table",
)
# Prompts and the looks that recolour them; "": as the prompt says.
LOOKS = (
    ("a red mushroom", ""),
    ("a red mushroom", "a blue mushroom"),
    ("a red mushroom", "a striped red mushroom"),
    ("a white rabbit", ""),
    ("a white rabbit", "a spotted green rabbit"),
    ("a white rabbit", "an orange cat"),
    ("a grey castle", ""),
    ("a grey castle", "a striped red castle"),
)
THUMBNAIL, SIDE, EXAMPLE = 150, 300, 144


def main() -> None:
    """Render the images and write them."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "assets")
    pipeline = Pipeline(load_model(SMALL))
    tiles = [with_caption(thumbnail(pipeline(prompt), THUMBNAIL), prompt) for prompt in PROMPTS]
    for prompt, look in LOOKS:
        mesh = pipeline(prompt, look=look, keep_shape=True)
        tiles.append(with_caption(thumbnail(mesh, THUMBNAIL), f"+ {look}" if look else prompt))
    _write(folder / "gallery.png", sheet(tiles, 8, 4))

    examples = [thumbnail(pipeline(prompt), EXAMPLE, background=None) for prompt in first_visit.PROMPTS]
    sprite = io.BytesIO()
    Image.fromarray(np.concatenate(examples, axis=1)).save(sprite, "WEBP", quality=85, method=6)
    print(write_atomically(folder / first_visit.SPRITE.name, sprite.getvalue()))

    fine = pipeline(PROMPTS[0], faces=None, unwrap="none").replace(colors=None)
    mesh = pipeline(PROMPTS[0], faces=len(fine.faces) // 6)

    def view(shown: Mesh, azimuth: float) -> np.ndarray:
        return render(shown, frame(fine.vertices, azimuth, 20.0), SIDE)

    atlas = Image.fromarray(np.asarray(mesh.texture)).resize((SIDE - 40, SIDE - 40), Image.Resampling.LANCZOS)
    framed = Image.new("RGB", (SIDE, SIDE), "white")
    framed.paste(atlas, (20, 20))
    grey = mesh.replace(texture=None)
    stairs = [view(fine, 30), view(grey, 30), view(mesh, 30), view(mesh, 150), np.asarray(framed)]
    _write(folder / "stairs.png", sheet(stairs, len(stairs)))
    print(f"{len(fine.faces)} faces, simplified to {len(mesh.faces)}")


def _write(path: Path, pixels: np.ndarray) -> None:
    print(write_atomically(path, encode_image(pixels, "png")))


if __name__ == "__main__":
    main()
