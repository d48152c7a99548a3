"""Captioned images of the toy world, sampled from the view cache: training data of the 2D models."""

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

SIZE = 64  # pixels per side
_AXIS_SHARE = 0.3  # fraction of images that look along an axis, as the generator's planes do


@dataclass(frozen=True)
class PictureBatch:
    """A batch of B captioned images.

    Attributes:
        images: [B, 3, 64, 64] in [-1, 1].
        object: coverage of each pixel by the object [B, 1, 64, 64] in [0, 1].
        captions: B captions.
        specs: the B specs of the captions.
    """

    images: Tensor
    object: Tensor
    captions: list[str]
    specs: list[Spec]


class PictureSampler:
    """Draws captioned images of some specs with `BalancedSampler`."""

    def __init__(self, view_cache: ViewCache, specs: Iterable[Spec]) -> None:
        self.view_cache = view_cache
        self.sampler = BalancedSampler(specs)
        self.toward = view_cache.cameras.c2w[:, :3, 2].float().numpy()

    def draw(self, count: int, rng: np.random.Generator, axes: bool = True) -> PictureBatch:
        """Draw `count` images, each with a random instance, camera, caption and plain background.

        Args:
            axes: whether some of the cameras look along an axis.
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
    """Shade the pixels of a view at half the size; returns RGB and coverage, float32 [H / 2, W / 2, 4].

    The shading is that of `view_renderer.shade`.

    Args:
        codes: codes [H, W] of the view cache's pixels.
        normals: their normals [H, W, 3], int8.
        table: colours of the codes [256, 3].
        toward: unit vector to the camera [3].
        background: colour of the background [3].
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
    """Return the sRGB colour of every pixel code of the view cache for a spec: [256, 3] float32."""
    by_bits = colors(spec.color, spec.support_color or spec.accent, spec.modifier)  # [8, 256, 3]
    codes = np.arange(256)
    return by_bits[(codes >> 4) & 7, codes & 15]


def shape_of(spec: Spec) -> str:
    """Return the key of SHAPES for a spec."""
    return spec.modifier if spec.modifier in SHAPES else ""
