"""Closed-form teachers: the exact denoiser of a finite set of images.

For a caption and cameras, the data distribution is uniform over the world's instances of that caption, seen
from those cameras. Its posterior mean under Gaussian noise is known exactly,

    E[x0 | x_t] = sum_i w_i x_i,    w_i ~ exp(-|x_t - alpha x_i|^2 / (2 sigma^2)),

and the noise is (x_t - alpha E[x0 | x_t]) / sigma, which is -sigma times the score of x_t. All views of a
scene form one x and share their weights, as in a multi-view network. The unconditional distribution covers
the captions of the whole world. `ClosedFormRGB` takes the place of MVDream, `ClosedFormGeometry` (normals and
disparity) that of RichDreamer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.geometry import normals_and_disparity
from triplaneturbo.teachers.loader import Data, TeacherContext, TeacherLoader
from triplaneturbo.utils.random_streams import RandomStreams


@dataclass(frozen=True)
class ReferenceImages:
    """Data points of a prediction.

    Attributes:
        caption: instances of each scene's caption [B, I, D].
        world: instances of all captions [B, J, D]; None if guidance is unavailable.
    """

    caption: Tensor
    world: Tensor | None


class _ClosedForm:
    """Base class of the closed-form teachers.

    Args:
        alphas: cumulative products of the noise schedule [T].
        data: returns the reference renderings of captions; see `Data`.
        world: captions of the unconditional distribution; if empty, guidance is unavailable.
    """

    name: str
    reads: tuple[str, ...]

    def __init__(self, alphas: Tensor, data: Data, world: Sequence[str] = ()) -> None:
        self.alphas = alphas
        self.data = data
        self.world = tuple(world)

    def _images(self, renderings: Renderings, scenes: SceneBatch) -> Tensor:
        raise NotImplementedError

    def encode(self, renderings: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """Return the images in [-1, 1]: [B, V, C, H, W]."""
        return self._images(renderings, scenes).movedim(-1, 2) * 2 - 1

    def condition(self, renderings: Renderings, scenes: SceneBatch) -> ReferenceImages:
        """Return the captions' reference images, and the world's if it was given."""
        caption = self._data(scenes.prompts, renderings, scenes)
        world = None
        if self.world:
            whole = replace(scenes, variants=None)
            parts = [
                self._data([text] * len(scenes.prompts), renderings, whole) for text in self.world
            ]  # each [B, I, D]
            world = torch.cat(parts, 1)
        return ReferenceImages(caption, world)

    def _data(self, captions: Sequence[str], renderings: Renderings, scenes: SceneBatch) -> Tensor:
        instances = self.data(captions, scenes, renderings, self.reads)
        unused = torch.Generator()
        return torch.stack([self.encode(one, scenes, unused).flatten(1) for one in instances], 1)

    def unconditional(self, condition: ReferenceImages) -> ReferenceImages:
        """See `Teacher.unconditional`.

        Raises:
            ValueError: if the teacher has no world captions.
        """
        return ReferenceImages(_world(condition), condition.world)

    def predict(
        self, noisy: Tensor, times: Tensor, condition: ReferenceImages, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the exact noise in `noisy` [B, V, C, H, W] at timesteps [B], conditional and unconditional.

        Raises:
            ValueError: if `guided` and the teacher has no world captions.
        """
        alpha, sigma = alpha_sigma(self.alphas, times, noisy)
        mean = posterior_mean(noisy, alpha, sigma, condition.caption)
        with_caption = (noisy - alpha * mean) / sigma
        if not guided:
            return with_caption, None
        mean = posterior_mean(noisy, alpha, sigma, _world(condition))
        return with_caption, (noisy - alpha * mean) / sigma


def _world(condition: ReferenceImages) -> Tensor:
    if condition.world is None:
        raise ValueError("guidance needs the captions of the world: pass `world`")
    return condition.world


class ClosedFormRGB(_ClosedForm):
    """Closed-form denoiser of colour images."""

    name = "rgb"
    reads: tuple[str, ...] = ("rgb",)

    def _images(self, renderings: Renderings, scenes: SceneBatch) -> Tensor:
        return renderings.rgb


class ClosedFormGeometry(_ClosedForm):
    """Closed-form denoiser of normals and disparity."""

    name = "geometry"
    reads: tuple[str, ...] = ("normal", "depth", "opacity")

    def _images(self, renderings: Renderings, scenes: SceneBatch) -> Tensor:
        return normals_and_disparity(renderings, scenes)


def posterior_mean(noisy: Tensor, alpha: Tensor, sigma: Tensor, data: Tensor) -> Tensor:
    """Return E[x0 | noisy] for x0 uniform over the rows of `data` [B, I, D], in the shape of `noisy`.

    Args:
        noisy: alpha x0 + sigma noise [B, ...].
        alpha, sigma: broadcastable to `noisy`, constant within a scene.
    """
    a, s = alpha.flatten(1)[:, :1], sigma.flatten(1)[:, :1]  # [B, 1]
    # Center the data: the part shared by all images would swamp the differences in float32.
    center = data.mean(1)  # [B, D]
    centered = data - center[:, None]  # [B, I, D]
    flat = (noisy.flatten(1) - a * center)[:, :, None]  # [B, D, 1]
    # |x_t|^2 is common to all rows, so squared distances reduce to a^2 |x_i|^2 - 2 a x_i . x_t.
    distances = a**2 * centered.square().sum(-1) - 2 * a * (centered @ flat)[..., 0]  # [B, I]
    weights = torch.softmax(-distances / (2 * s**2), dim=1)
    return (weights[:, None] @ data).view_as(noisy)


def alpha_sigma(alphas: Tensor, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma at timesteps [B], broadcastable to `like` [B, ...]."""
    alpha_bar = alphas.to(like)[times].view(-1, *[1] * (like.ndim - 1))
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def _loader(kind: type[_ClosedForm]) -> TeacherLoader:
    def load(context: TeacherContext, files: None) -> _ClosedForm:
        if context.data is None:
            raise ValueError("closed-form teachers need reference renderings")
        return kind(context.generator.scheduler.alphas_cumprod, context.data)

    return TeacherLoader(load)


RGB, GEOMETRY = _loader(ClosedFormRGB), _loader(ClosedFormGeometry)
