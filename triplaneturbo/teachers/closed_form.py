"""Teachers in closed form: the exact denoiser of a finite set of pictures.

For a caption and cameras the data are the world's instances, seen from those cameras, each as likely as any
other. Of such a distribution the posterior mean under Gaussian noise is known exactly,

    E[x0 | x_t] = sum_i w_i x_i,    w_i ~ exp(-|x_t - alpha x_i|^2 / (2 sigma^2)),

and the noise is (x_t - alpha E[x0 | x_t]) / sigma = -sigma times the score of x_t. The views of a scene are
one x: they are weighed together, as a multi-view network weighs them. Without a caption the data are all
those of the whole world (a list of captions). `ClosedFormRGB` stands for MVDream, `ClosedFormGeometry`
(normals and disparity) for RichDreamer's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triplaneturbo.teachers.base import Renderings, SceneBatch
from triplaneturbo.teachers.geometry import normals_and_disparity
from triplaneturbo.utils.random_streams import RandomStreams

# (captions, their scenes, whose pixels, which fields) -> the instances of these captions, each seen as the
# student's renderings are: as many `Renderings` as a caption has instances, each [B, V, H, W, ...].
Data = Callable[[Sequence[str], SceneBatch, Renderings, tuple[str, ...]], list[Renderings]]


@dataclass(frozen=True)
class Sets:
    """The data that a prediction weighs: of each scene's caption [B, I, D], the world's [B, J, D] or None."""

    caption: Tensor
    world: Tensor | None


class _ClosedForm:
    """What both teachers share.

    Args:
        alphas: cumulative products of the noise schedule [T].
        data: gives the pictures of captions; see `Data`.
        world: captions whose pictures together are the data without a caption; empty: guidance is refused.
    """

    name: str
    reads: tuple[str, ...]

    def __init__(self, alphas: Tensor, data: Data, world: Sequence[str] = ()) -> None:
        self.alphas = alphas
        self.data = data
        self.world = tuple(world)

    def _see(self, seen: Renderings, scenes: SceneBatch) -> Tensor:
        raise NotImplementedError

    def encode(self, seen: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """The pictures themselves in [-1, 1]: [B, V, C, H, W]."""
        return self._see(seen, scenes).movedim(-1, 2) * 2 - 1

    def condition(self, seen: Renderings, scenes: SceneBatch) -> Sets:
        """The captions' pictures, and the world's if guidance may be asked for."""
        caption = self._data(scenes.prompts, seen, scenes)
        world = None
        if self.world:
            parts = [
                self._data([text] * len(scenes.prompts), seen, scenes) for text in self.world
            ]  # each [B, I, D]
            world = torch.cat(parts, 1)
        return Sets(caption, world)

    def _data(self, captions: Sequence[str], seen: Renderings, scenes: SceneBatch) -> Tensor:
        instances = self.data(captions, scenes, seen, self.reads)
        nothing = torch.Generator()
        return torch.stack([self.encode(one, scenes, nothing).flatten(1) for one in instances], 1)

    def predict(
        self, noisy: Tensor, times: Tensor, condition: Sets, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The exact noise in [B, V, C, H, W] at timesteps [B], with the caption and without it.

        Raises:
            ValueError: `guided`, and no captions of the world were given.
        """
        alpha, sigma = levels(self.alphas, times, noisy)
        mean = posterior_mean(noisy, alpha, sigma, condition.caption)
        with_caption = (noisy - alpha * mean) / sigma
        if not guided:
            return with_caption, None
        if condition.world is None:
            raise ValueError("guidance needs the world's captions: give `world`")
        mean = posterior_mean(noisy, alpha, sigma, condition.world)
        return with_caption, (noisy - alpha * mean) / sigma


class ClosedFormRGB(_ClosedForm):
    """Pictures in colour."""

    name = "rgb"
    reads: tuple[str, ...] = ("rgb",)

    def _see(self, seen: Renderings, scenes: SceneBatch) -> Tensor:
        return seen.rgb


class ClosedFormGeometry(_ClosedForm):
    """Normals and disparity."""

    name = "geometry"
    reads: tuple[str, ...] = ("normal", "depth", "opacity")

    def _see(self, seen: Renderings, scenes: SceneBatch) -> Tensor:
        return normals_and_disparity(seen, scenes)


def posterior_mean(noisy: Tensor, alpha: Tensor, sigma: Tensor, data: Tensor) -> Tensor:
    """E[x0 | noisy] where x0 is one of `data` [B, I, D], all equally likely: of noisy's shape [B, ...].

    Args:
        noisy: alpha x0 + sigma noise.
        alpha, sigma: of shapes that broadcast to noisy, the same within a scene.
    """
    a, s = alpha.flatten(1)[:, :1], sigma.flatten(1)[:, :1]  # [B, 1]
    # About the data's own mean: what all of them share, most of a picture, would drown what differs.
    middle = data.mean(1)  # [B, D]
    apart = data - middle[:, None]  # [B, I, D]
    flat = (noisy.flatten(1) - a * middle)[:, :, None]  # [B, D, 1]
    # |x_t|^2 is the same for all: what differs is a^2 |x_i|^2 - 2 a x_i . x_t.
    away = a**2 * apart.square().sum(-1) - 2 * a * (apart @ flat)[..., 0]  # [B, I]
    weights = torch.softmax(-away / (2 * s**2), dim=1)
    return (weights[:, None] @ data).view_as(noisy)


def levels(alphas: Tensor, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at timesteps [B], shaped to broadcast to `like` [B, ...]."""
    kept = alphas.to(like)[times].view(-1, *[1] * (like.ndim - 1))
    return kept.sqrt(), (1 - kept).sqrt()
