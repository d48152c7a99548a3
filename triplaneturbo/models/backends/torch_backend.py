"""Inference backend that runs the torch modules of the model."""

from __future__ import annotations

from torch import Tensor

from triplaneturbo.models.weights import Model


class TorchBackend:
    """The model's own modules, with the adapter that is active at each call; see `Backend`."""

    def __init__(self, model: Model) -> None:
        self._generator, self._text = model.generator, model.text

    def embed(self, prompts: list[str]) -> Tensor:
        """See `TextEncoder.embed`."""
        return self._text.embed(prompts)

    def predict(self, latents: Tensor, time: Tensor, text_embeds: Tensor) -> Tensor:
        """See `TriplaneGenerator.predict`."""
        return self._generator.predict(latents, time, text_embeds)

    def decode(self, latents: Tensor, one_by_one: bool = False) -> Tensor:
        """See `TriplaneGenerator.decode`."""
        return self._generator.decode(latents, one_by_one)
