"""Text embeddings of a corpus, computed once and kept: what `python -m triplaneturbo embed` makes.

    corpus.*                     the prompts (corpus.py)
    embeds-000000.safetensors    of `PER_SHARD` prompts in their order: "embeds" [N, 77, D], float16
    embeds.json                  by which text encoder
    embeds.npy                   where a prompt is found: marks uint64 [N], sorted, and their numbers [N]

Made a shard at a time, each whole or not there, so that what was stopped or killed is gone on with.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from triplaneturbo.distill.corpora.corpus import Corpus
from triplaneturbo.errors import UserError
from triplaneturbo.utils.atomic_files import write_whole

PER_SHARD = 512
ABOUT, FOUND_BY = "embeds.json", "embeds.npy"
Embed = Callable[[list[str]], Tensor]


def encoder_mark(base: Path) -> str:
    """Tells one text encoder from another: a hash of its files.

    Raises:
        UserError: they cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted((base / "text_encoder").iterdir()):
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
    except OSError as error:
        raise UserError(
            f"Cannot read {base / 'text_encoder'}: {error.strerror}; restore the model."
        ) from None
    return digest.hexdigest()[:16]


def make_embeddings(corpus: Corpus, embed: Embed, mark: str, folder: Path, batch: int = 32) -> Iterator[int]:
    """Embed all prompts of the corpus in `folder`; yields how many are done after each shard.

    Args:
        mark: see `encoder_mark`.
        batch: prompts at a time.

    Raises:
        UserError: the folder has embeddings of another encoder, cannot be written, or the disk is too small.
    """
    width = embed([corpus[0]]).shape[1:].numel()
    about = {"encoder": mark, "prompts": len(corpus), "source": corpus.source}
    told = _told(folder)
    if told is not None and told != about:
        raise UserError(f"{folder} has embeddings of another model or file: give another folder.")
    shards = [range(start, min(start + PER_SHARD, len(corpus))) for start in range(0, len(corpus), PER_SHARD)]
    missing = [numbers for numbers in shards if not _shard(folder, numbers[0]).exists()]
    needed = sum(map(len, missing)) * width * 2
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The embeddings of {len(corpus):,} prompts take {needed / 1e9:.1f} GB, and {folder} has"
            f" {free / 1e9:.1f} GB: give a folder with more, or finetune without them."
        )
    write_whole(folder / ABOUT, (json.dumps(about) + "\n").encode())
    if not (folder / FOUND_BY).exists():
        _index(corpus, folder)
    done = len(corpus) - sum(map(len, missing))
    yield done
    for numbers in missing:
        parts = [
            embed([corpus[number] for number in numbers[at : at + batch]]).half().cpu()
            for at in range(0, len(numbers), batch)
        ]
        write_whole(_shard(folder, numbers[0]), save({"embeds": torch.cat(parts).contiguous()}))
        done += len(numbers)
        yield done


class Embeddings:
    """The embeddings of a folder; what is not in it is embedded on the fly.

    Args:
        folder: that `make_embeddings` has filled.
        embed: embeds what is missing.
        mark: of the encoder that `embed` is.
        device: where embeddings are wanted.

    Raises:
        UserError: the folder has none, or those of another encoder.
    """

    def __init__(self, folder: Path, embed: Embed, mark: str, device: torch.device) -> None:
        told = _told(folder)
        if told is None or not (folder / FOUND_BY).exists():
            raise UserError(f"There are no embeddings in {folder}: make them with triplaneturbo embed.")
        if told["encoder"] != mark:
            raise UserError(f"The embeddings in {folder} are those of another model: make them anew.")
        self._folder, self._embed, self._device = folder, embed, device
        self._marks, self._numbers = np.load(folder / FOUND_BY, mmap_mode="r")

    def __call__(self, prompts: list[str]) -> Tensor:
        """Embeddings [B, 77, D] of prompts, float32."""
        rows = [self._find(prompt) for prompt in prompts]
        missing = [prompt for prompt, row in zip(prompts, rows, strict=True) if row is None]
        made = iter(self._embed(missing)) if missing else iter(())
        return torch.stack([(next(made) if row is None else row).to(self._device).float() for row in rows])

    def _find(self, prompt: str) -> Tensor | None:
        mark = prompt_hash(prompt)
        at = int(np.searchsorted(self._marks, mark))
        if at == len(self._marks) or self._marks[at] != mark:
            return None
        number = int(self._numbers[at])
        path = _shard(self._folder, number // PER_SHARD * PER_SHARD)
        try:
            with safe_open(path, "pt") as file:
                return file.get_slice("embeds")[number % PER_SHARD]
        except FileNotFoundError:
            return None  # it was stopped before it came to that
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is broken ({error}): delete it and embed again.") from None


def prompt_hash(prompt: str) -> np.uint64:
    """64 bits of a hash of a prompt."""
    return np.frombuffer(hashlib.blake2b(prompt.encode(), digest_size=8).digest(), dtype=np.uint64)[0]


def _index(corpus: Corpus, folder: Path) -> None:
    marks = np.fromiter((prompt_hash(corpus[i]) for i in range(len(corpus))), np.uint64, len(corpus))
    order = np.argsort(marks, kind="stable")
    buffer = BytesIO()
    np.save(buffer, np.stack((marks[order], order.astype(np.uint64))))
    write_whole(folder / FOUND_BY, buffer.getvalue())


def _told(folder: Path) -> dict | None:
    try:
        told = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and "encoder" in told else None


def _shard(folder: Path, first: int) -> Path:
    return folder / f"embeds-{first // PER_SHARD:06}.safetensors"
