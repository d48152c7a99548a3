"""Pictures to refine toward: the object that is cut out, and files that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from triplaneturbo.errors import UserError
from triplaneturbo.refine import given_image
from triplaneturbo.refine.given_image import SIDE, UPLOAD_MOST_PIXELS, read_given_image

RED, WHITE = (200, 30, 30), (255, 255, 255)


def drawn(
    size: tuple[int, int] = (100, 80), background: tuple[int, ...] = WHITE, mode: str = "RGB"
) -> Image.Image:
    """A red box, 40 wide and 20 high, with a white window."""
    image = Image.new(mode, size, background)
    image.paste(RED, (30, 20, 70, 40))
    image.paste(WHITE, (45, 25, 55, 35))
    return image


def rows_and_columns(opacity: torch.Tensor) -> tuple[int, int]:
    solid = opacity > 0.5
    return int(solid.any(1).sum()), int(solid.any(0).sum())


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_a_plain_background_is_cut_away(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"box.{suffix}"
    drawn().save(path, quality=95)
    image = read_given_image(path)
    assert image.rgb.shape == (SIDE, SIDE, 3)
    height, width = rows_and_columns(image.opacity)
    assert (height, width) == (pytest.approx(SIDE // 2, abs=20), pytest.approx(SIDE, abs=2))
    assert image.rgb[SIDE // 2, SIDE // 8] * 255 == pytest.approx(torch.tensor(RED), abs=8)
    # The window is not connected to the border.
    assert image.opacity[SIDE // 2, SIDE // 2] == 1
    assert image.rgb[0].abs().max() == 0


def test_transparency_is_cut_away_whatever_its_colour(tmp_path: Path) -> None:
    image = drawn(mode="RGBA", background=(9, 200, 9, 0))
    image.paste((0, 0, 255, 0), (45, 25, 55, 35))
    image.save(tmp_path / "box.png")
    given = read_given_image(tmp_path / "box.png")
    assert given.opacity[SIDE // 2, SIDE // 2] == 0
    assert float(given.rgb[..., 1:].max()) < 0.2
    again = tmp_path / "again.png"
    again.write_bytes(given.png())
    assert (read_given_image(again).opacity - given.opacity).abs().mean() < 0.01


def test_a_picture_is_placed_in_an_image_and_cut_off_at_its_border(tmp_path: Path) -> None:
    drawn().save(tmp_path / "box.png")
    image = read_given_image(tmp_path / "box.png")
    _, opacity = image.placed(64, (32, 32, 40))
    assert rows_and_columns(opacity) == (20, 40)
    assert (opacity > 0.5).nonzero().float().mean(0).tolist() == pytest.approx([31.5, 31.5], abs=0.5)
    _, opacity = image.placed(64, (0, 32, 40))
    assert rows_and_columns(opacity) == (20, 20)


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: 90 degrees clockwise
    drawn().save(tmp_path / "box.jpg", exif=exif)
    height, width = rows_and_columns(read_given_image(tmp_path / "box.jpg").opacity)
    assert height > 1.5 * width


def _noise(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _animated(path: Path) -> None:
    drawn().save(path, "WEBP", save_all=True, append_images=[drawn(background=(0, 0, 0))])


BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("huge.png", lambda path: Image.new("1", (20_000, 20_000)).save(path), "has too many pixels; reduce"),
    ("wide.png", lambda path: Image.new("1", (20_000, 8)).save(path), "has too many pixels; reduce"),
    ("animated.webp", _animated, "is animated; save one of its frames as a PNG."),
    ("print.jpg", lambda path: drawn().convert("CMYK").save(path), "has CMYK colours; save it as"),
    ("empty.png", lambda path: Image.new("RGBA", (64, 64)).save(path), "is fully transparent; use"),
    ("page.png", lambda path: path.write_text("<html>404</html>"), "is not a PNG, JPEG or WEBP picture."),
    ("photo.png", _noise, "has no plain background; cut the object out"),
    ("wall.png", lambda path: Image.new("RGB", (64, 64)).save(path), "shows no object, or a tiny"),
    ("full.png", lambda path: Image.new("RGBA", (64, 64), (9, 9, 9, 249)).save(path), "The object fills"),
    ("cut.png", lambda path: path.write_bytes(_png()[:90]), "Cannot read "),
    ("missing.png", lambda path: None, "Cannot read "),
]  # fmt: skip


def _png() -> bytes:
    import io

    buffer = io.BytesIO()
    drawn().save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "write", "sentence"), BAD, ids=[name for name, *_ in BAD])
def test_unusable_pictures_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Path], object], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(name))
    with pytest.raises(UserError) as caught:
        read_given_image(name)
    message = str(caught.value)
    assert sentence in message
    assert name in message
    assert message.count("\n") == 0
    assert message.rstrip(".").count(". ") == 0


def test_a_large_picture_is_reduced_before_its_object_is_cut_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = list[tuple[int, ...]]()
    foreground = given_image._foreground

    def watched(rgb: np.ndarray, name: str) -> np.ndarray:
        sizes.append(rgb.shape)
        return foreground(rgb, name)

    monkeypatch.setattr(given_image, "_foreground", watched)
    drawn().save(tmp_path / "small.png")
    small = read_given_image(tmp_path / "small.png")
    large = drawn().resize((3000, 2400), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: upside down
    for name, options in (("a.png", {}), ("a.jpg", {"quality": 95}), ("turned.jpg", {"exif": exif})):
        large.save(tmp_path / name, **options)
        given = read_given_image(tmp_path / name)
        assert rows_and_columns(given.opacity) == pytest.approx(rows_and_columns(small.opacity), abs=16)
        assert given.rgb[SIDE // 2, SIDE // 8] * 255 == pytest.approx(torch.tensor(RED), abs=8)
    assert sizes == [(80, 100, 3), *3 * [(819, 1024, 3)]]


def test_pictures_of_unknown_senders_have_a_lower_limit(tmp_path: Path) -> None:
    Image.new("1", (UPLOAD_MOST_PIXELS + 1, 8)).save(tmp_path / "wide.png")
    with pytest.raises(UserError, match="reduce it to at most 4096 a side"):
        read_given_image(tmp_path / "wide.png", UPLOAD_MOST_PIXELS)
    with pytest.raises(UserError, match="shows no object"):
        read_given_image(tmp_path / "wide.png")


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_image, "MOST_BYTES", 1 << 20)
    (tmp_path / "large.png").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(UserError, match="has more than 1 MB; save a smaller picture"):
        read_given_image(tmp_path / "large.png")
