"""TextEncoder: the CLIP text model and tokenizer of the base."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer


class TextEncoder:
    """A frozen CLIP text model with its tokenizer."""

    def __init__(self, tokenizer: CLIPTokenizer, model: CLIPTextModel) -> None:
        self.tokenizer = tokenizer
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> Tensor:
        """Return the last hidden state after the final norm [B, 77, D]; prompts are padded or truncated."""
        ids = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.model.config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return self.model(ids.to(self.model.device)).last_hidden_state

    def truncated_text(self, prompt: str) -> str:
        """Return the end of `prompt` that is truncated because the prompt is too long; "" if it fits."""
        length = self.model.config.max_position_embeddings - 2
        # verbose=False suppresses a wrong warning about indexing errors.
        ids = self.tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
        return self.tokenizer.decode(ids[length:]) if len(ids) > length else ""
