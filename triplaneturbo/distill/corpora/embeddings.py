"""Precomputed text embeddings of a corpus, written by `python -m triplaneturbo embed`.

    corpus.*                     the prompts (corpus.py)
    embeds-000000.safetensors    embeddings of `PER_SHARD` prompts in order: "embeds" [N, 77, D], float16
    embeds.json                  the text encoder
    embeds.npy                   index: sorted hashes of the prompts, uint64 [N], and their numbers [N]

Shards are written atomically, so an interrupted computation resumes with the first missing shard.
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
from triplaneturbo.utils.atomic_files import write_atomically

PER_SHARD = 512
METADATA, PROMPT_INDEX = "embeds.json", "embeds.npy"
Embed = Callable[[list[str]], Tensor]


def encoder_mark(base: Path) -> str:
    """Return a hash of a text encoder's files.

    Raises:
        UserError: if they cannot be read.
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
    """Embed all prompts of a corpus; yield the number of embedded prompts after each shard.

    Args:
        embed: text encoder.
        mark: see `encoder_mark`.
        folder: output folder.
        batch: prompts per call of `embed`.

    Raises:
        UserError: if the folder has embeddings of another encoder or file, cannot be written, or the disk is
            too small.
    """
    width = embed([corpus[0]]).shape[1:].numel()
    metadata = {"encoder": mark, "prompts": len(corpus), "source": corpus.source}
    stored = _read_metadata(folder)
    if stored is not None and stored != metadata:
        raise UserError(f"{folder} contains embeddings of another model or file: choose another folder.")
    shards = [range(start, min(start + PER_SHARD, len(corpus))) for start in range(0, len(corpus), PER_SHARD)]
    missing = [numbers for numbers in shards if not _shard(folder, numbers[0]).exists()]
    needed = sum(map(len, missing)) * width * 2
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The embeddings of {len(corpus):,} prompts take {needed / 1e9:.1f} GB, and {folder} has"
            f" {free / 1e9:.1f} GB free: choose another folder, or fine-tune without precomputed embeddings."
        )
    write_atomically(folder / METADATA, (json.dumps(metadata) + "\n").encode())
    if not (folder / PROMPT_INDEX).exists():
        _index(corpus, folder)
    done = len(corpus) - sum(map(len, missing))
    yield done
    for numbers in missing:
        parts = [
            embed([corpus[number] for number in numbers[at : at + batch]]).half().cpu()
            for at in range(0, len(numbers), batch)
        ]
        write_atomically(_shard(folder, numbers[0]), save({"embeds": torch.cat(parts).contiguous()}))
        done += len(numbers)
        yield done


class Embeddings:
    """Lookup of precomputed embeddings; missing prompts are embedded on the fly.

    Args:
        folder: folder that `make_embeddings` has filled.
        embed: text encoder for missing prompts.
        mark: see `encoder_mark`.
        device: device of the returned embeddings.

    Raises:
        UserError: if the folder has no embeddings, or those of another encoder.
    """

    def __init__(self, folder: Path, embed: Embed, mark: str, device: torch.device) -> None:
        stored = _read_metadata(folder)
        if stored is None or not (folder / PROMPT_INDEX).exists():
            raise UserError(f"There are no embeddings in {folder}: compute them with `triplaneturbo embed`.")
        if stored["encoder"] != mark:
            raise UserError(f"The embeddings in {folder} are those of another model: compute them again.")
        self._folder, self._embed, self._device = folder, embed, device
        self._hashes, self._numbers = np.load(folder / PROMPT_INDEX, mmap_mode="r")

    def __call__(self, prompts: list[str]) -> Tensor:
        """Return embeddings [B, 77, D] of prompts, float32."""
        rows = [self._find(prompt) for prompt in prompts]
        missing = [prompt for prompt, row in zip(prompts, rows, strict=True) if row is None]
        embedded = iter(self._embed(missing)) if missing else iter(())
        return torch.stack(
            [(next(embedded) if row is None else row).to(self._device).float() for row in rows]
        )

    def _find(self, prompt: str) -> Tensor | None:
        key = prompt_hash(prompt)
        at = int(np.searchsorted(self._hashes, key))
        if at == len(self._hashes) or self._hashes[at] != key:
            return None
        number = int(self._numbers[at])
        path = _shard(self._folder, number // PER_SHARD * PER_SHARD)
        try:
            with safe_open(path, "pt") as file:
                return file.get_slice("embeds")[number % PER_SHARD]
        except FileNotFoundError:
            return None  # embedding was stopped before this shard
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is broken ({error}): delete it and embed again.") from None


def prompt_hash(prompt: str) -> np.uint64:
    """Return a 64-bit hash of a prompt."""
    return np.frombuffer(hashlib.blake2b(prompt.encode(), digest_size=8).digest(), dtype=np.uint64)[0]


def _index(corpus: Corpus, folder: Path) -> None:
    hashes = np.fromiter((prompt_hash(corpus[i]) for i in range(len(corpus))), np.uint64, len(corpus))
    order = np.argsort(hashes, kind="stable")
    buffer = BytesIO()
    np.save(buffer, np.stack((hashes[order], order.astype(np.uint64))))
    write_atomically(folder / PROMPT_INDEX, buffer.getvalue())


def _read_metadata(folder: Path) -> dict | None:
    try:
        stored = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and "encoder" in stored else None


def _shard(folder: Path, first: int) -> Path:
    return folder / f"embeds-{first // PER_SHARD:06}.safetensors"
