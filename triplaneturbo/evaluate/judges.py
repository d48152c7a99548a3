"""Judges: CLIP models that embed the views and the prompts of an evaluation.

A judge is named by the user as `toyworld`, as a folder, or as NAME/TAG of open_clip. `find_judge`
resolves the name to files and a key without loading them, so that finished embeddings need no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import open_clip
import torch
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.evaluate import clip
from triplaneturbo.evaluate.open_clip_judge import (
    CONFIG_NAME,
    PREPROCESS_KEYS,
    WEIGHTS_NAMES,
    OpenClipJudge,
    read_config,
    weights_file,
)
from triplaneturbo.evaluate.store import digest, file_digest
from triplaneturbo.evaluate.toyworld_judge import BACKGROUND, ToyworldJudge
from triplaneturbo.models.catalog import DATA, SMALL
from triplaneturbo.models.hub import CacheError, Release, Source, cache_folder, fetch
from triplaneturbo.request import shown

TOYWORLD = "toyworld"
RANDOM_TAG = "random"  # NAME/random: an architecture of open_clip with random weights
CLIP_FOLDER = DATA / "checkpoints" / "clip"  # NAME-TAG/ in it is searched before the hub


class Judge(Protocol):
    """A loaded CLIP model."""

    def embed_images(self, images: np.ndarray) -> Tensor:
        """Return unit embeddings [N, E] on the CPU of images uint8 [N, H, W, 3]."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit embeddings [M, E] on the CPU."""


@dataclass(frozen=True)
class JudgeFiles:
    """A judge that is not loaded yet.

    Attributes:
        name: as shown in tables.
        key: hash of everything that determines its embeddings.
        trained: False if its weights are random.
        config: open_clip's model configuration; None for the toy world's judge.
        folder: its folder; None for a random model.
        background: the background that it needs; None: the protocol's.
        takes_prefix: whether prompts get the protocol's prefix.
    """

    name: str
    key: str
    trained: bool
    config: dict[str, Any] | None
    folder: Path | None
    background: tuple[int, int, int] | None = None
    takes_prefix: bool = True

    def load(self, device: torch.device) -> Judge:
        """Load the model.

        Raises:
            UserError: a file is invalid, or the weights belong to another architecture.
        """
        if self.config is None:
            assert self.folder is not None
            return ToyworldJudge(self.folder, device)
        return OpenClipJudge(self.name, self.config, self.folder, device)

    def deviation(self, prescribed: Sequence[str]) -> str:
        """Return a sentence if this is none of the models that a protocol prescribes, otherwise "".

        A folder counts as the model whose architecture and activation it has.
        """
        own = _architecture(self.config) if self.config and "/" not in self.name else None
        if self.name in prescribed or own in [_architecture(_named_config(name)) for name in prescribed]:
            return ""
        return (
            f"{self.name} is not the CLIP of this protocol ({', '.join(prescribed)}): its figures cannot be"
            " compared with the quoted ones."
        )


def _architecture(config: dict[str, Any]) -> list[Any]:
    model = config["model_cfg"]
    parts = [model[part] for part in ("embed_dim", "vision_cfg", "text_cfg")]
    return [*parts, bool(model.get("quick_gelu"))]


def _named_config(name: str) -> dict[str, Any]:
    model, _, tag = name.partition("/")
    return tag_config(model, open_clip.get_pretrained_cfg(model, tag))


def find_judge(name: str) -> JudgeFiles:
    """Find a judge by name, downloading its files if they are neither local nor cached.

    Args:
        name: "toyworld"; a folder with open_clip's configuration and weights, or with a CLIP saved by
            `clip.Clip`; NAME/TAG of open_clip, whose files are searched in `CLIP_FOLDER`/NAME-TAG and
            then on the hub; or NAME/random for random weights.

    Raises:
        UserError: the name is unknown, or files are missing and cannot be downloaded.
    """
    if name == TOYWORLD:
        return _toyworld(SMALL / "clip", TOYWORLD)
    folder = Path(name).expanduser()
    if os.path.isdir(folder):
        if (folder / clip.CONFIG_NAME).is_file():
            return _toyworld(folder, folder.resolve().name)
        return _of_folder(folder, folder.resolve().name)
    model, slash, tag = name.partition("/")
    if not slash or not model or model not in open_clip.list_models():
        raise UserError(
            f"There is no CLIP {shown(name)}; use toyworld, a folder, or a model of open_clip such as"
            " ViT-B-32/openai."
        )
    if tag == RANDOM_TAG:
        config = {"model_cfg": open_clip.get_model_config(model), "untrained_seed": 0}
        return JudgeFiles(name, digest(name=name), False, config, None)
    pretrained = open_clip.get_pretrained_cfg(model, tag)
    if not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
        raise UserError(f"{model} has no weights {shown(tag)}; use one of {tags}.")
    local = CLIP_FOLDER / f"{model}-{tag}"
    folder = local if local.is_dir() else _from_hub(name, pretrained, local)
    return _with_weights(folder, name, tag_config(model, pretrained))


def tag_config(model: str, pretrained: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of NAME/TAG as open_clip has it, in the layout of `read_config`.

    Args:
        model: NAME.
        pretrained: open_clip's description of TAG, which knows the activation and the preprocessing.
    """
    config = open_clip.get_model_config(model)
    config["quick_gelu"] = pretrained.get("quick_gelu", config.get("quick_gelu", False))
    preprocess = {key: pretrained[key] for key in PREPROCESS_KEYS if key in pretrained}
    return json.loads(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))


def _toyworld(folder: Path, name: str) -> JudgeFiles:
    key = digest(config=_digest_of(folder / clip.CONFIG_NAME), weights=_digest_of(folder / clip.WEIGHTS_NAME))
    return JudgeFiles(name, key, True, None, folder, BACKGROUND, takes_prefix=False)


def _of_folder(folder: Path, name: str) -> JudgeFiles:
    config = read_config(folder)
    if config.get("untrained_seed") is not None:
        return JudgeFiles(name, digest(config=config), False, config, None)
    return _with_weights(folder, name, config)


def _with_weights(folder: Path, name: str, config: dict[str, Any]) -> JudgeFiles:
    key = digest(config=config, weights=_digest_of(weights_file(folder)))
    return JudgeFiles(name, key, True, config, folder)


def _from_hub(name: str, pretrained: dict[str, Any], local: Path) -> Path:
    repository = pretrained.get("hf_hub", "").strip("/")
    advice = f"put its weights ({WEIGHTS_NAMES[0]}) into {local}"
    if repository.count("/") != 1:
        raise UserError(f"The CLIP {name} is not on the hub; {advice}.")
    try:
        return fetch(Release(f"the CLIP {name}", (Source(repository),), ((CONFIG_NAME,), WEIGHTS_NAMES)))
    except CacheError:
        raise
    except UserError as error:
        raise UserError(
            f"{str(error).rstrip('.')}; {advice}, or use --clip (searched there and in {cache_folder()})."
        ) from None


def _digest_of(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"File not found: {path}; restore the CLIP's folder.")
    return file_digest(path)


def describe(files: JudgeFiles) -> dict[str, Any]:
    """Return what results record about a judge."""
    return {"name": files.name, "key": files.key, "trained": files.trained, "config": files.config}
