"""The teacher protocol: a frozen diffusion model that denoises the student's renderings.

A teacher encodes the renderings (`Renderings`) of a batch of scenes (`SceneBatch`) into the space that it
diffuses (`encode`), collects its conditioning (`condition`) and predicts noise (`predict`). Diffusion
networks and closed-form denoisers implement the same three methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.utils.random_streams import RandomStreams


@dataclass(frozen=True)
class SceneBatch:
    """B scenes, each seen by V cameras.

    Attributes:
        prompts: B captions.
        cameras: B * V cameras, ordered scene by scene.
        views: V.
        background: background colour [B, 3], sRGB in [0, 1].
        rig: index into a fixed set of camera rigs; None for arbitrary cameras.
    """

    prompts: list[str]
    cameras: Cameras
    views: int
    background: Tensor
    rig: int | None = None


@dataclass(frozen=True)
class Renderings:
    """The student's renderings of B scenes from V views each.

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


class Teacher(Protocol):
    """A frozen denoiser of renderings.

    Attributes:
        name: key in logs and settings.
        alphas: cumulative products of its noise schedule (alpha bar) [T].
        reads: names of the `Renderings` fields that it reads and that receive its gradients.
    """

    name: str
    alphas: Tensor
    reads: tuple[str, ...]

    def encode(self, renderings: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """Encode renderings into the teacher's diffusion space; differentiable.

        Args:
            rng: random streams for sampled quantities, such as the VAE posterior.

        Returns:
            [B, n, ...]: n images per scene.
        """
        ...

    def condition(self, renderings: Renderings, scenes: SceneBatch) -> Any:
        """Return the conditioning (captions, cameras, background) that `predict` takes."""
        ...

    def unconditional(self, condition: Any) -> Any:
        """Return a conditioning whose conditional prediction is the unconditional one of `condition`."""
        ...

    def predict(
        self, noisy: Tensor, times: Tensor, condition: Any, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the noise in `noisy` [B, n, ...] at timesteps `times` [B].

        Returns:
            The conditional prediction and, if `guided`, the unconditional one (else None).
        """
        ...
