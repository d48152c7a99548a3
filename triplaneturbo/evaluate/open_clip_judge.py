"""A judge of open_clip: a folder with configuration and weights, as repositories on the hub have.

`open_clip_config.json` holds "model_cfg" (arguments of the model) and "preprocess_cfg" (mean, std,
interpolation, resize mode). With "untrained_seed", a number, the weights are random, and the folder
needs none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from triplaneturbo.errors import UserError

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")
_BATCH = 64  # images or texts at a time


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of a folder.

    Raises:
        UserError: it is missing or invalid.
    """
    path = folder / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config["model_cfg"])
    except FileNotFoundError:
        raise UserError(f"{folder} contains no CLIP: {CONFIG_NAME} not found.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"Cannot read {path} ({error}); restore or download it again.") from None
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; restore or download it again.")
    return config


def weights_file(folder: Path) -> Path:
    """Return the weights file of a folder.

    Raises:
        UserError: there is none.
    """
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has no CLIP weights; put one of {', '.join(WEIGHTS_NAMES)} into it.")


@cache
def _simple_tokenizer(length: int) -> open_clip.SimpleTokenizer:
    """Return CLIP's tokenizer, whose vocabulary takes a third of a second to read."""
    return open_clip.SimpleTokenizer(context_length=length)


class OpenClipJudge:
    """A CLIP of open_clip with its own tokenizer, resizing and normalisation, in float32.

    Args:
        name: its name in messages.
        config: as in `read_config`.
        folder: the folder of its weights; None: random weights of the seed `untrained_seed`.
        device: device of the model.

    Raises:
        UserError: the model is no plain CLIP, or the weights belong to another architecture.
    """

    def __init__(self, name: str, config: dict[str, Any], folder: Path | None, device: torch.device) -> None:
        model_config, text_config = config["model_cfg"], config["model_cfg"]["text_cfg"]
        if model_config.get("custom_text") or "hf_tokenizer_name" in text_config:
            raise UserError(
                f"{name} has another text encoder than CLIP's; use a plain CLIP such as ViT-B-32."
            )
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.get("untrained_seed") or 0)
                self.model = open_clip.CLIP(**model_config)
            if folder is not None:
                open_clip.load_checkpoint(self.model, str(weights_file(folder)))
        except MemoryError:
            raise
        except Exception as error:  # open_clip raises errors of many kinds, also failed assertions
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise UserError(
                f"The weights of the CLIP {name} do not fit its architecture ({reason}); use those of the"
                " same model."
            ) from None
        self.model.eval().requires_grad_(False).to(device)
        self._device = device
        size = self.model.visual.image_size
        preprocess = config.get("preprocess_cfg", {})
        self._transform = open_clip.image_transform(
            size,
            is_train=False,
            **{key: preprocess.get(key) for key in PREPROCESS_KEYS},
        )
        self._tokenize = _simple_tokenizer(
            text_config.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
        )

    @torch.no_grad()
    def embed_images(self, images: np.ndarray) -> Tensor:
        """Return unit embeddings [N, E] on the CPU of images uint8 [N, H, W, 3]."""
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = [self._transform(Image.fromarray(image)) for image in images[start : start + _BATCH]]
            embeds = self.model.encode_image(torch.stack(batch).to(self._device))
            parts.append(F.normalize(embeds.float(), dim=-1).cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit embeddings [M, E] on the CPU; texts beyond the context length are truncated."""
        parts = []
        for start in range(0, len(texts), _BATCH):
            tokens = self._tokenize(list(texts[start : start + _BATCH])).to(self._device)
            parts.append(F.normalize(self.model.encode_text(tokens).float(), dim=-1).cpu())
        return torch.cat(parts)
