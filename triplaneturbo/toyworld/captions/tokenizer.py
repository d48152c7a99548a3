"""CLIP tokenizer of the toy world: byte-pair encoding trained on its captions.

The merges are trained here and not with the `tokenizers` package, whose trainer breaks ties by the order of a
hash table that differs between runs: the same captions must give the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from triplaneturbo.toyworld.captions.captions import captions
from triplaneturbo.toyworld.captions.combinations import all_specs
from triplaneturbo.toyworld.captions.words import phrases
from triplaneturbo.utils.atomic_files import write_atomically

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77  # maximum number of tokens of the text model
_WORD_END = "</w>"


def train_tokenizer(folder: Path, texts: Iterable[str]) -> None:
    """Write `vocab.json`, `merges.txt` and `tokenizer_config.json` for `CLIPTokenizer` into `folder`.

    The most frequent pair is merged first, until every word of `texts` is one token. As in CLIP, all bytes
    are in the vocabulary, inside and at the end of a word, so any prompt can be encoded.

    Raises:
        UserError: the folder cannot be written.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*alphabet, *(one + _WORD_END for one in alphabet)]
    merges = _train_merges(_count_words(texts, symbols))
    tokens = dict.fromkeys([*symbols, *(left + right for left, right in merges), START, END])
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "model_max_length": LENGTH,
    }
    lines = "".join(f"{left} {right}\n" for left, right in merges)
    write_atomically(folder / "merges.txt", f"#version: 0.2\n{lines}".encode())
    write_atomically(folder / "vocab.json", json.dumps({token: i for i, token in enumerate(tokens)}).encode())
    write_atomically(folder / "tokenizer_config.json", (json.dumps(config, indent=2) + "\n").encode())


def _count_words(texts: Iterable[str], symbols: list[str]) -> Counter[tuple[str, ...]]:
    """Count the words of the texts, each as a tuple of its symbols; texts are split into words as in CLIP."""
    vocabulary = {token: i for i, token in enumerate([*symbols, START, END])}
    clip = CLIPTokenizer(vocab=vocabulary, merges=[]).backend_tokenizer
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        for word, _ in clip.pre_tokenizer.pre_tokenize_str(clip.normalizer.normalize_str(text)):
            spelled = (*word[:-1], word[-1] + _WORD_END)
            counts[spelled] += 1
    return counts


def _train_merges(counts: Counter[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Return the pairs to merge, in order: by frequency, then alphabetically."""
    words = dict(counts)
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {_merge(word, best): count for word, count in words.items()}


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Replace every occurrence of the pair in a word with one symbol, from left to right."""
    merged: list[str] = []
    at = 0
    while at < len(word):
        if word[at : at + 2] == pair:
            merged.append(word[at] + word[at + 1])
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return tuple(merged)


def world_texts() -> list[str]:
    """Return the training texts of the tokenizer: every word that captions may use, and every caption."""
    return [*phrases(), *(caption for spec in all_specs() for caption in captions(spec))]
