"""What every teacher is: a denoiser of renderings, asked for the noise that it sees in them.

A teacher is shown the student's renderings (`Renderings`) of some scenes (`SceneBatch`), encodes them as what
it diffuses, and predicts noise for a caption and cameras. Real networks and closed forms answer to the same
three calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.utils.random_streams import RandomStreams


@dataclass(frozen=True)
class SceneBatch:
    """B scenes, each looked at by V cameras.

    Attributes:
        prompts: B captions.
        cameras: B * V cameras, scene after scene.
        views: V.
        background: colour around the object [B, 3], sRGB in [0, 1].
        rig: which of a fixed set of camera rigs the cameras are; None where they are free.
    """

    prompts: list[str]
    cameras: Cameras
    views: int
    background: Tensor
    rig: int | None = None


@dataclass(frozen=True)
class Renderings:
    """The student's renderings of B scenes from V views each, as teachers are shown them.

    Attributes:
        rgb: [B, V, H, W, 3], sRGB in [0, 1], on the scenes' background.
        normal: world normals of any length [B, V, H, W, 3]; None where the renderer has none to teach.
        depth: distance along the view direction of what is seen [B, V, H, W], anything where opacity is 0;
            None likewise.
        opacity: [B, V, H, W], 0 to 1.
        stride, first: these are pixels first[0]::stride, first[1]::stride of a larger image.
    """

    rgb: Tensor
    opacity: Tensor
    normal: Tensor | None = None
    depth: Tensor | None = None
    stride: int = 1
    first: tuple[int, int] = (0, 0)


class Teacher(Protocol):
    """A frozen denoiser of renderings.

    Attributes:
        name: for logs and settings.
        alphas: cumulative products of its noise schedule [T].
        reads: the fields of `Renderings` that it reads, to which its gradients go.
    """

    name: str
    alphas: Tensor
    reads: tuple[str, ...]

    def encode(self, seen: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """What it diffuses, differentiable in `seen`: [B, n, ...], n images of each scene (its views).

        `chance` draws what it samples.
        """
        ...

    def condition(self, seen: Renderings, scenes: SceneBatch) -> Any:
        """All that `predict` needs to know of captions, cameras and background."""
        ...

    def predict(
        self, noisy: Tensor, times: Tensor, condition: Any, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The noise in [B, n, ...] at timesteps [B]: with the caption, and, if `guided`, without it."""
        ...
