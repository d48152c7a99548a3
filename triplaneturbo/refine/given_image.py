"""Reading the picture that a user wants as a 3D asset, and cutting out its object."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 8192  # per side
UPLOAD_MOST_PIXELS = 4096  # per side, of unknown senders
WORKING_PIXELS = 1024
"""Per side: larger pictures are reduced to it before the object is cut out."""
MOST_BYTES = 64 << 20
SIDE = 512
_MODES = ("L", "LA", "P", "PA", "RGB", "RGBA", "1")
_OPAQUE = 250  # alpha from which a pixel counts as opaque
_SIMILAR = 0.08  # largest difference of a channel from the background's colour
_PLAIN = 0.9  # share of the border's pixels that must be similar to their median
_LEAST, _MOST = 0.002, 0.97  # share of the pixels that an object covers
_CUT_OUT = "cut the object out, so that the rest is transparent"


@dataclass(frozen=True)
class GivenImage:
    """A picture of one object, cut out, centred in a square that its longer side fills.

    Attributes:
        rgb: sRGB in [0, 1], black where transparent (premultiplied by the opacity) [SIDE, SIDE, 3].
        opacity: [SIDE, SIDE], in [0, 1].
        digest: sha256 of the file, which must be the same on resume.
    """

    rgb: Tensor
    opacity: Tensor
    digest: str

    def placed(self, size: int, box: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
        """Return premultiplied colours [size, size, 3] and opacity [size, size] of the object in an image.

        Args:
            size: side of the image, in pixels.
            box: column and row of the square's centre, and its side, in pixels; parts outside are cut off.
        """
        column, row, side = box
        pixels = max(1, round(side))
        left, top = round(column - pixels / 2), round(row - pixels / 2)
        both = torch.cat((self.rgb, self.opacity[..., None]), -1).movedim(-1, 0)[None]  # [1, 4, SIDE, SIDE]
        small = F.interpolate(both, (pixels, pixels), mode="bilinear", antialias=True)[0].clamp(0, 1)
        padded = F.pad(small, (left, size - left - pixels, top, size - top - pixels))
        return padded[:3].movedim(0, -1), padded[3]

    def png(self) -> bytes:
        """Return the cut-out as a PNG with transparency."""
        straight = self.rgb / self.opacity.clamp_min(1e-3)[..., None]
        pixels = torch.cat((straight, self.opacity[..., None]), -1).clamp(0, 1)
        buffer = io.BytesIO()
        Image.fromarray((pixels * 255).round().to(torch.uint8).numpy(), "RGBA").save(buffer, "PNG")
        return buffer.getvalue()


def read_given_image(path: str | os.PathLike[str], most_pixels: int = MOST_PIXELS) -> GivenImage:
    """Read a PNG, JPEG or WebP file and cut out its object.

    What is transparent is cut away. Without transparency, the background must have one colour; it is what
    has this colour and is connected to the border, so holes of the object should be transparent.

    Args:
        path: the file.
        most_pixels: maximum number of pixels per side, to be decoded.

    Raises:
        UserError: the file is missing, of another format, broken, too large, animated, has other colours
            than grey or RGB, or shows no object on a plain background.
    """
    name = shown(str(path))
    try:
        place = Path(path).expanduser()
        if place.stat().st_size > MOST_BYTES:
            raise UserError(f"{name} has more than {MOST_BYTES >> 20} MB; save a smaller picture.")
        data = place.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {name}: {(error.strerror or 'error').lower()}.") from None
    rgb, alpha = _decode(data, name, most_pixels)
    opacity = _opacity(rgb, alpha, name)
    return GivenImage(*_square(rgb, opacity), hashlib.sha256(data).hexdigest())


def _decode(data: bytes, name: str, most_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return upright colours [H, W, 3] and alpha [H, W], uint8, of at most `WORKING_PIXELS` a side."""
    too_many = f"{name} has too many pixels; reduce it to at most {most_pixels} a side."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)  # reads the header only
        if max(image.size) > most_pixels:
            raise UserError(too_many)
        if getattr(image, "n_frames", 1) > 1:
            raise UserError(f"{name} is animated; save one of its frames as a PNG.")
        if image.mode not in _MODES:
            raise UserError(f"{name} has {image.mode} colours; save it as an 8-bit RGB PNG.")
        large = max(image.size) > WORKING_PIXELS
        if large:
            image.draft(None, (WORKING_PIXELS, WORKING_PIXELS))  # JPEG: decode a fraction of the pixels
        pixels = image.convert("RGBA")
        if large:
            pixels.thumbnail((WORKING_PIXELS, WORKING_PIXELS))
        upright = np.asarray(ImageOps.exif_transpose(pixels))
    except Image.DecompressionBombError:
        raise UserError(too_many) from None
    except UnidentifiedImageError:
        raise UserError(f"{name} is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture.") from None
    except UserError:
        raise
    except Exception as error:  # Pillow raises errors of many kinds for broken files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"Cannot read {name}: {reason}; save the picture again.") from None
    return upright[..., :3], upright[..., 3]


def _opacity(rgb: np.ndarray, alpha: np.ndarray, name: str) -> np.ndarray:
    """Return the opacity of the object, float32 in [0, 1] [H, W]."""
    if not alpha.any():
        raise UserError(f"{name} is fully transparent; use a picture that shows the object.")
    if alpha.min() < _OPAQUE:
        opacity = alpha.astype(np.float32) / 255
    else:
        opacity = _foreground(rgb.astype(np.float32) / 255, name)
    share = float(opacity.mean())
    if share > _MOST:
        raise UserError(f"The object fills almost all of {name}; {_CUT_OUT}.")
    if share < _LEAST:
        raise UserError(f"{name} shows no object, or a tiny one; crop the picture to the object.")
    return opacity


def _foreground(rgb: np.ndarray, name: str) -> np.ndarray:
    """Return 0 for the plain background around an object in colours [H, W, 3], else 1."""
    border = np.concatenate((rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]))
    color = np.median(border, axis=0)
    if (np.abs(border - color).max(-1) < _SIMILAR).mean() < _PLAIN:
        raise UserError(f"{name} has no plain background; {_CUT_OUT}.")
    labels, _ = ndimage.label(np.abs(rgb - color).max(-1) < _SIMILAR)
    outer = np.unique(np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1])))
    return (~np.isin(labels, outer[outer > 0])).astype(np.float32)


def _square(rgb: np.ndarray, opacity: np.ndarray) -> tuple[Tensor, Tensor]:
    """Crop to the object and scale it into a square: premultiplied colours and opacity."""
    rows, columns = (np.flatnonzero((opacity > 0.5).any(axis)) for axis in (1, 0))
    if not len(rows):  # nothing is more than half opaque
        rows, columns = (np.flatnonzero((opacity > 0).any(axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    mask = torch.from_numpy(opacity[box])
    both = torch.cat(
        (torch.from_numpy(rgb[box].astype(np.float32) / 255) * mask[..., None], mask[..., None]), -1
    )
    height, width = mask.shape
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    both = F.pad(both.movedim(-1, 0), (left, side - width - left, top, side - height - top))
    scaled = F.interpolate(both[None], (SIDE, SIDE), mode="bilinear", antialias=True)[0].clamp(0, 1)
    return scaled[:3].movedim(0, -1).contiguous(), scaled[3].contiguous()
