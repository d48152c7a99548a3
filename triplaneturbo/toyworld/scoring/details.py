"""Details of a surface: small patches of another colour, such as eyes, windows, sprinkles and checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

LEAST_PIXELS = 8  # of a patch: an eye has some 40 of 128 x 128
MOST_SHARE = 0.04  # of the object's pixels in the view
SHIFTS = tuple(product(range(-4, 5, 2), repeat=2))  # pixels by which a patch may be displaced, down and right
_MARGIN = 6  # pixels around a patch that are compared; at least the largest shift, and its ring


@dataclass(frozen=True)
class Detail:
    """A small patch of one colour in a view of the ground truth, and the ring of pixels around it.

    Attributes:
        view, top, left: where the masks lie.
        patch, ring: bool [h, w].
        color, around: sRGB colour [3] of the patch, and the most frequent one in the ring.
    """

    view: int
    top: int
    left: int
    patch: np.ndarray
    ring: np.ndarray
    color: np.ndarray
    around: np.ndarray


def find_details(mask: np.ndarray, rgb: np.ndarray) -> Iterator[Detail]:
    """Find the details in views of plain colours.

    Args:
        mask: coverage, bool [V, H, W].
        rgb: unlit colours [V, H, W, 3] in [0, 1].

    Yields:
        Every connected patch of one colour with 8 pixels to 4 % of the object's, of whose ring at least three
        quarters belong to the object. A patch that the outline cuts is none: it may be the edge of a large
        one.
    """
    codes = (np.round(rgb * 255).astype(np.int64) * (1 << 16, 1 << 8, 1)).sum(-1)
    codes[~mask] = -1
    for view, code in enumerate(codes):
        most = MOST_SHARE * mask[view].sum()
        for value in np.unique(code[mask[view]]):
            labels, _ = ndimage.label(code == value)
            for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
                top, left = max(0, rows.start - _MARGIN), max(0, columns.start - _MARGIN)
                window = (slice(top, rows.stop + _MARGIN), slice(left, columns.stop + _MARGIN))
                patch = labels[window] == number
                if not LEAST_PIXELS <= patch.sum() <= most:
                    continue
                ring = ndimage.binary_dilation(patch, iterations=2) & ~patch
                on_object = ring & mask[view][window]
                if 4 * on_object.sum() < 3 * ring.sum():
                    continue
                around, counts = np.unique(rgb[view][window][on_object], axis=0, return_counts=True)
                color = rgb[view][window][patch][0]
                yield Detail(view, top, left, patch, on_object, color, around[counts.argmax()])


def detail_recall(
    mask: np.ndarray, rgb: np.ndarray, true_mask: np.ndarray, true_rgb: np.ndarray
) -> tuple[int, int]:
    """Count the details of the ground truth, and those that a result has at about the same place.

    A detail is there if, displaced by at most four pixels, more than half of its pixels are closer to its
    colour than to the colour around it, and more than half of its ring the other way round: a smear is none.

    Args:
        mask, rgb: coverage, bool [V, H, W], and unlit colours [V, H, W, 3] of the result.
        true_mask, true_rgb: those of the ground truth.

    Returns:
        The number of recalled details, and of all.
    """
    details = list(find_details(true_mask, true_rgb))
    return sum(_is_recalled(detail, mask, rgb) for detail in details), len(details)


def _is_recalled(detail: Detail, mask: np.ndarray, rgb: np.ndarray) -> bool:
    inside = np.abs(rgb[detail.view] - detail.color).sum(-1)
    outside = np.abs(rgb[detail.view] - detail.around).sum(-1)
    covered = mask[detail.view]
    alike, unlike = covered & (inside < outside), covered & (inside > outside)
    patch, ring = (np.argwhere(part) + (detail.top, detail.left) for part in (detail.patch, detail.ring))
    return any(
        2 * _count(alike, patch + shift) > len(patch) and 2 * _count(unlike, ring + shift) > len(ring)
        for shift in SHIFTS
    )


def _count(image: np.ndarray, at: np.ndarray) -> int:
    """Count the True pixels of an image [H, W] at rows and columns [N, 2]; those outside of it are False."""
    inside = ((at >= 0) & (at < image.shape)).all(1)
    return int(image[tuple(at[inside].T)].sum())


def normal_error(normal: np.ndarray, true_normal: np.ndarray, both: np.ndarray) -> float | None:
    """Return the mean angle, in degrees, between normals [V, H, W, 3] where `both` holds; None if nowhere."""
    if not both.any():
        return None
    one, other = normal[both].astype(np.float64), true_normal[both].astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    cosine = (one * other).sum(-1) / np.maximum(lengths, 1e-12)
    return float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())
