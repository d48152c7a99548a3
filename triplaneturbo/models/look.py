"""A look of its own: the geometry planes of a prompt read one text, its texture planes another.

The planes are separate rows of the U-Net's batch, and in cross-attention each row may have its own text. No
training is needed: an adapter that learned from one text per object already separates shape and colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from triplaneturbo.models.peta import PLANES
from triplaneturbo.models.schedule import denoise_steps

_GEOMETRY = PLANES // 2  # the first planes of a prompt
# Maps noisy latents [B, 6, 4, h, h] and a timestep to the U-Net's output, shaped as the latents.
Predict = Callable[[Tensor, Tensor], Tensor]


def interleave(shape: Tensor, look: Tensor) -> Tensor:
    """Return the text of each half of the planes for `TriplaneGenerator.predict`.

    Args:
        shape: text embeddings for the geometry planes [B, 77, D].
        look: text embeddings for the texture planes [B, 77, D].

    Returns:
        [2B, 77, D].
    """
    return torch.stack([shape, look], dim=1).flatten(0, 1)


def denoise_keeping_shape(
    scheduler: DDIMScheduler, draft: Predict, predict: Predict, latents: Tensor, steps: int
) -> Iterator[Tensor]:
    """Denoise latents with a look, with the geometry planes of a draft in place of its own at every step.

    The draft is denoised beside it from the same noise. Its geometry planes are replayed rather than
    denoised, so that the texture planes attend to the shape that the mesh will have, and the yielded geometry
    planes are equal to the draft's bit for bit.

    Args:
        scheduler, latents, steps: see `denoise_steps`.
        draft: prediction with the text of the shape alone.
        predict: prediction with the texts of shape and look.

    Yields:
        The predicted clean sample of each step [B, 6, 4, h, h], float32.
    """
    geometry = torch.empty(0)

    def predict_draft(noisy: Tensor, time: Tensor) -> Tensor:
        nonlocal geometry
        output = draft(noisy, time)
        geometry = output[:, :_GEOMETRY]
        return output

    def predict_look(noisy: Tensor, time: Tensor) -> Tensor:
        return torch.cat([geometry, predict(noisy, time)[:, _GEOMETRY:]], dim=1)

    drafts = denoise_steps(scheduler, predict_draft, latents, steps)
    looks = denoise_steps(scheduler, predict_look, latents, steps)
    for _, estimate in zip(drafts, looks, strict=True):
        yield estimate
