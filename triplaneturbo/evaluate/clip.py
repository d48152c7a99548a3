"""CLIP evaluation: image and text embeddings of an open_clip model, and caption retrieval ranks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPTokenizer

from triplaneturbo.errors import UserError
from triplaneturbo.utils.atomic_files import write_atomically

CONFIG_NAME, WEIGHTS_NAME, TOKENIZER_NAME = "clip.json", "clip.safetensors", "tokenizer"
_CHUNK = 512  # texts or images per batch


class Clip:
    """A CLIP model with its tokenizer.

    A saved model is a folder with `clip.json` (arguments of `open_clip.CLIP`), `clip.safetensors` (float16)
    and `tokenizer/`, in the layout of transformers' CLIPTokenizer.
    """

    def __init__(self, config: dict[str, Any], tokenizer: CLIPTokenizer) -> None:
        """Create a model with random weights.

        Args:
            config: open_clip's `embed_dim`, `vision_cfg` and `text_cfg`.
            tokenizer: its end-of-text token must have the largest id: open_clip pools at the largest id.
        """
        self.config = config
        self.tokenizer = tokenizer
        self.model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])
        self.size: int = config["vision_cfg"]["image_size"]

    @classmethod
    def load(cls, folder: Path) -> Clip:
        """Load a model from a folder, in float32 on the CPU, in evaluation mode and without gradients.

        Raises:
            UserError: a file is missing or invalid.
        """
        try:
            config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
            clip = cls(config, CLIPTokenizer.from_pretrained(folder / TOKENIZER_NAME))
            weights = safetensors.torch.load_file(folder / WEIGHTS_NAME)
            clip.model.load_state_dict({name: _to_float32(weight) for name, weight in weights.items()})
        except FileNotFoundError:
            raise UserError(
                f"No CLIP model found in {folder}; train one with `python -m triplaneturbo.toyworld clip`."
            ) from None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise UserError(
                f"The CLIP model in {folder} is invalid ({error}); delete the folder and train it again."
            ) from error
        clip.model.eval().requires_grad_(False)
        return clip

    def save(self, folder: Path) -> None:
        """Save the model to a folder; the configuration is written last, so that a partial folder is invalid.

        Raises:
            UserError: the folder cannot be written.
        """
        weights = {
            name: weight.half().contiguous() if weight.is_floating_point() else weight
            for name, weight in self.model.state_dict().items()
        }
        write_atomically(folder / WEIGHTS_NAME, safetensors.torch.save(weights))
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            source = Path(self.tokenizer.name_or_path) / name
            write_atomically(folder / TOKENIZER_NAME / name, source.read_bytes())
        write_atomically(folder / CONFIG_NAME, (json.dumps(self.config, indent=2) + "\n").encode())

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return token ids [N, L] of texts, truncated or padded to the model's context length L."""
        length = self.config["text_cfg"]["context_length"]
        return self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit embeddings [N, E] of texts."""
        device = self.model.token_embedding.weight.device
        parts = [
            self.model.encode_text(self.tokens(texts[start : start + _CHUNK]).to(device), normalize=True)
            for start in range(0, len(texts), _CHUNK)
        ]
        return torch.cat(parts).float()

    @torch.no_grad()
    def embed_views(self, pictures: Tensor) -> Tensor:
        """Return unit embeddings [N, E] of objects, given V views of each.

        Args:
            pictures: [N, V, 3, size, size] in [0, 1].
        """
        batch = max(1, _CHUNK // pictures.shape[1])
        parts = [self.merged(pictures[start : start + batch]) for start in range(0, len(pictures), batch)]
        return torch.cat(parts).float()

    def merged(self, pictures: Tensor) -> Tensor:
        """Compute `embed_views` in one differentiable batch: the mean of the views' unit embeddings."""
        flat = (pictures * 2 - 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        batch = self.model.encode_image(flat, normalize=True).unflatten(0, pictures.shape[:2])  # [N, V, E]
        return F.normalize(batch.float().mean(1), dim=-1)


def rank(embeds: Tensor, captions: Tensor, right: Tensor) -> Tensor:
    """Return the rank of each object's caption among all captions, int64 [N]; 0 is a hit.

    The rank is the number of other captions that are at least as similar: ties count against the object, so
    that a model that cannot distinguish captions scores no hit.

    Args:
        embeds: unit embeddings of the objects [N, E].
        captions: unit embeddings of the captions [M, E].
        right: index of each object's caption [N].
    """
    similarity = embeds @ captions.t()  # [N, M]
    own = similarity.gather(1, right[:, None])
    return (similarity >= own).sum(1) - 1


def _to_float32(weight: Tensor) -> Tensor:
    return weight.float() if weight.is_floating_point() else weight
