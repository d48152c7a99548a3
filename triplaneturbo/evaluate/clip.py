"""A judge of pictures: which of many captions does a CLIP of open_clip's classes find nearest?"""

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
from triplaneturbo.utils.atomic_files import write_whole

CONFIG_NAME, WEIGHTS_NAME, TOKENIZER_NAME = "clip.json", "clip.safetensors", "tokenizer"
_CHUNK = 512  # captions or pictures at a time


class Clip:
    """A CLIP with its tokenizer.

    A folder of one holds `clip.json` (what `open_clip.CLIP` is built from), `clip.safetensors` (float16) and
    `tokenizer/`, in the layout of transformers' CLIPTokenizer.
    """

    def __init__(self, config: dict[str, Any], tokenizer: CLIPTokenizer) -> None:
        """Weights are drawn at random; `config` holds open_clip's `embed_dim`, `vision_cfg` and `text_cfg`.

        The end-of-text token has to be the last of the tokenizer's: open_clip pools where the id is largest.
        """
        self.config = config
        self.tokenizer = tokenizer
        self.model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])
        self.size: int = config["vision_cfg"]["image_size"]

    @classmethod
    def load(cls, folder: Path) -> Clip:
        """The CLIP of a folder, float32 on the CPU, for judging.

        Raises:
            UserError: a file is missing or broken.
        """
        try:
            config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
            clip = cls(config, CLIPTokenizer.from_pretrained(folder / TOKENIZER_NAME))
            weights = safetensors.torch.load_file(folder / WEIGHTS_NAME)
            clip.model.load_state_dict({name: _widened(weight) for name, weight in weights.items()})
        except FileNotFoundError:
            raise UserError(
                f"There is no CLIP in {folder}: train one with `python -m triplaneturbo.toyworld clip`."
            ) from None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise UserError(
                f"The CLIP in {folder} is broken ({error}): delete the folder and train it again."
            ) from error
        clip.model.eval().requires_grad_(False)
        return clip

    def save(self, folder: Path) -> None:
        """Write the folder; its configuration last, so that a half-written one is no CLIP.

        Raises:
            UserError: it cannot be written.
        """
        weights = {
            name: weight.half().contiguous() if weight.is_floating_point() else weight
            for name, weight in self.model.state_dict().items()
        }
        write_whole(folder / WEIGHTS_NAME, safetensors.torch.save(weights))
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            source = Path(self.tokenizer.name_or_path) / name
            write_whole(folder / TOKENIZER_NAME / name, source.read_bytes())
        write_whole(folder / CONFIG_NAME, (json.dumps(self.config, indent=2) + "\n").encode())

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids [N, L] of texts, cut or padded to what the model reads."""
        length = self.config["text_cfg"]["context_length"]
        return self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings [N, E] of texts."""
        device = self.model.token_embedding.weight.device
        parts = [
            self.model.encode_text(self.tokens(texts[start : start + _CHUNK]).to(device), normalize=True)
            for start in range(0, len(texts), _CHUNK)
        ]
        return torch.cat(parts).float()

    @torch.no_grad()
    def embed_views(self, pictures: Tensor) -> Tensor:
        """Unit embeddings [N, E] of objects seen from V sides; pictures [N, V, 3, size, size] in [0, 1]."""
        each = max(1, _CHUNK // pictures.shape[1])
        parts = [self.merged(pictures[start : start + each]) for start in range(0, len(pictures), each)]
        return torch.cat(parts).float()

    def merged(self, pictures: Tensor) -> Tensor:
        """Like `embed_views`, all at once and differentiable: views' unit embeddings are averaged."""
        flat = (pictures * 2 - 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        each = self.model.encode_image(flat, normalize=True).unflatten(0, pictures.shape[:2])  # [N, V, E]
        return F.normalize(each.float().mean(1), dim=-1)


def rank(embeds: Tensor, captions: Tensor, right: Tensor) -> Tensor:
    """How many captions are nearer than the right one, for each object: int64 [N]; 0 is a hit.

    Args:
        embeds: of the objects [N, E].
        captions: embeddings [M, E].
        right: index of each object's caption [N].

    A caption exactly as near as the right one counts as nearer: a judge that cannot tell scores nothing.
    """
    nearness = embeds @ captions.t()  # [N, M]
    own = nearness.gather(1, right[:, None])
    return (nearness >= own).sum(1) - 1


def _widened(weight: Tensor) -> Tensor:
    return weight.float() if weight.is_floating_point() else weight
