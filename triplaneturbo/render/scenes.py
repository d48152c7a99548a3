"""Scenes and their renderings: what a renderer is given, and what teachers read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from triplaneturbo.render.cameras import Cameras


@dataclass(frozen=True)
class SceneBatch:
    """B scenes, each seen by V cameras.

    Attributes:
        prompts: B captions.
        cameras: B * V cameras, ordered scene by scene.
        views: V.
        background: background colour [B, 3], sRGB in [0, 1].
        rig: index into a fixed set of camera rigs; None for arbitrary cameras.
        variants: variant of each scene, int64 [B]; None if the model has no variants.
    """

    prompts: list[str]
    cameras: Cameras
    views: int
    background: Tensor
    rig: int | None = None
    variants: Tensor | None = None


@dataclass(frozen=True)
class Renderings:
    """Renderings of B scenes from V views each.

    Attributes:
        rgb: [B, V, H, W, 3], sRGB in [0, 1], composited on the background.
        normal: unnormalized world-space normals [B, V, H, W, 3]; None if the renderer provides none.
        depth: depth along the viewing axis [B, V, H, W], undefined where opacity is 0; None if the renderer
            provides none.
        opacity: [B, V, H, W], in [0, 1].
        stride, first: the images contain pixels first[0]::stride, first[1]::stride of a larger image.
    """

    rgb: Tensor
    opacity: Tensor
    normal: Tensor | None = None
    depth: Tensor | None = None
    stride: int = 1
    first: tuple[int, int] = (0, 0)
