"""Captioned pictures of the world, drawn at random from the pool: what the 2D models learn from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.toyworld.captions.captions import captions
from triplaneturbo.toyworld.captions.combinations import BalancedSampler
from triplaneturbo.toyworld.scene.object_class import INSTANCES
from triplaneturbo.toyworld.scene.solids import SHAPES
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scene.view_cache import AXES, NOTHING_CODE, ViewCache
from triplaneturbo.toyworld.scene.view_renderer import colors
from triplaneturbo.utils.kernels import kernel

SIZE = 64  # pixels a side
_AXIS_SHARE = 0.3  # of pictures that look along an axis, as the planes of a generator do


@dataclass(frozen=True)
class PictureBatch:
    """B captioned pictures.

    Attributes:
        images: [B, 3, 64, 64] in [-1, 1].
        object: how much of a pixel the object covers [B, 1, 64, 64], 0 to 1.
        captions: B texts.
        specs: what they mean.
    """

    images: Tensor
    object: Tensor
    captions: list[str]
    specs: list[Spec]


class PictureSampler:
    """Draws pictures of some specs, every kind and class equally often (`Balance`)."""

    def __init__(self, view_cache: ViewCache, specs: Iterable[Spec]) -> None:
        self.view_cache = view_cache
        self.sampler = BalancedSampler(specs)
        self.toward = view_cache.cameras.c2w[:, :3, 2].float().numpy()

    def draw(self, count: int, rng: np.random.Generator, axes: bool = True) -> PictureBatch:
        """Draw `count` pictures, each of another instance from another side on another plain background.

        `axes`: whether some look along an axis.
        """
        drawn, texts, specs = [], [], []
        cameras = len(self.view_cache.cameras)
        for _ in range(count):
            spec = self.sampler.draw(rng)
            wordings = captions(spec)
            along = axes and rng.random() < _AXIS_SHARE
            view = int(cameras - AXES + rng.integers(AXES) if along else rng.integers(cameras - AXES))
            pixels = self.view_cache.pixels(spec.thing, shape_of(spec), spec.support, slice(view, view + 1))
            pixels = pixels[int(rng.integers(INSTANCES)), 0]
            out = shade_pixels(
                np.ascontiguousarray(pixels["code"]),
                np.ascontiguousarray(pixels["normal"]),
                color_table(spec),
                self.toward[view],
                rng.random(3, dtype=np.float32),
            )
            drawn.append(out)
            texts.append(wordings[int(rng.integers(len(wordings)))])
            specs.append(spec)
        both = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()  # [B, 4, 64, 64]
        return PictureBatch(both[:, :3] * 2 - 1, both[:, 3:], texts, specs)


@kernel
def shade_pixels(codes, normals, table, toward, background):
    """A shaded picture at half the size, and how much of each pixel is covered: [H / 2, W / 2, 4] float32.

    The shading is that of `views.shade`. Args: codes [H, W] and normals [H, W, 3] of a pool's pixels, colours
    [256, 3] of their codes, the direction to the camera [3], the background's colour [3].
    """
    height, width = codes.shape[0] // 2, codes.shape[1] // 2
    out = np.zeros((height, width, 4), dtype=np.float32)
    for row in range(2 * height):
        for column in range(2 * width):
            code = codes[row, column]
            place = out[row // 2, column // 2]
            if code & 15 == NOTHING_CODE:
                for i in range(3):
                    place[i] += background[i] / 4
                continue
            n = normals[row, column]
            facing = (n[0] * toward[0] + n[1] * toward[1] + n[2] * toward[2]) / 127
            light = 0.62 + 0.2 * (n[2] / 254 + 0.5) + 0.18 * max(facing, 0.0)
            for i in range(3):
                place[i] += table[code, i] * light / 4
            place[3] += 0.25
    return out


def color_table(spec: Spec) -> np.ndarray:
    """sRGB of every pixel code of the pool for what a caption means: [256, 3] float32."""
    by_bits = colors(spec.color, spec.support_color or spec.accent, spec.modifier)  # [8, 256, 3]
    codes = np.arange(256)
    return by_bits[(codes >> 4) & 7, codes & 15]


def shape_of(spec: Spec) -> str:
    """Which of the world's SHAPES a spec's solids have."""
    return spec.modifier if spec.modifier in SHAPES else ""
