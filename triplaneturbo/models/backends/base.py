"""Interface of the inference backends: what runs the networks of a model."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Backend(Protocol):
    """The three networks of a model, for generation without gradients.

    The noise schedule, the field's MLPs and the mesh do not belong to a backend. Tensors that it takes and
    returns are torch tensors on the device of the model.
    """

    def embed(self, prompts: list[str]) -> Tensor:
        """Embed prompts with the text encoder [B, 77, D]; they are padded or truncated."""
        ...

    def predict(self, latents: Tensor, time: Tensor, text_embeds: Tensor) -> Tensor:
        """Run the U-Net once.

        Args:
            latents: noisy latents [B, 6, 4, h, h].
            time: timestep, an int64 scalar.
            text_embeds: text embeddings [B, 77, D], or, with a text of their own for the texture planes,
                [2B, 77, D]: of geometry and texture in turn (`look.interleave`).

        Returns:
            [B, 6, 4, h, h], of the prediction type of the schedule.
        """
        ...

    def decode(self, latents: Tensor, one_by_one: bool = False) -> Tensor:
        """Decode clean latents [B, 6, 4, h, h] to feature planes [B, 6, C, H, W].

        Args:
            latents: clean latents.
            one_by_one: save memory by decoding one plane at a time.
        """
        ...
