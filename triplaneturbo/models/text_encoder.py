"""Words to embeddings, by the base's own CLIP."""

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
        """Last hidden state after the final norm [B, 77, D]; longer prompts are cut, shorter ones padded."""
        ids = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.model.config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return self.model(ids.to(self.model.device)).last_hidden_state

    def cut(self, prompt: str) -> str:
        """The end of `prompt` that the model does not see because it is too long; "" if it sees all."""
        length = self.model.config.max_position_embeddings - 2
        # Not verbose: it would log that so long a prompt "will result in indexing errors", which is untrue.
        ids = self.tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
        return self.tokenizer.decode(ids[length:]) if len(ids) > length else ""
