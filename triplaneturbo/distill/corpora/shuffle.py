"""Pseudo-random permutations of any length without a table, for shuffling prompts.

Each epoch visits every prompt once, in a different order. The position follows from the seed and the
iteration, so resuming needs no state, and processes share an epoch without overlap.
"""

from __future__ import annotations

_ROUNDS = 6
_WORD = 2**64 - 1


def sample_indices(count: int, seed: int, start: int, many: int) -> list[int]:
    """Return the prompt indices at positions [start, start + many) of an endless shuffled sequence.

    Args:
        count: number of prompts, at least 1.
        seed: seed of the order.
        start: number of prompts drawn before.
        many: number of indices to return.
    """
    return [
        permuted_index(position % count, count, seed * 1_000_003 + position // count)
        for position in range(start, start + many)
    ]


def permuted_index(position: int, count: int, seed: int) -> int:
    """Return the element at a position of the permutation of 0 to count - 1 given by a seed.

    A Feistel network permutes the next larger power of four; results of at least `count` are permuted again
    (cycle walking; Black and Rogaway 2002).
    """
    half = ((count - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_splitmix64(right + (seed * _ROUNDS + number << 32)) & mask)
        position = left << half | right
        if position < count:
            return position


def _splitmix64(value: int) -> int:
    """Mix 64 bits with the finalizer of splitmix64 (Vigna 2015)."""
    value = (value + 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _WORD
    return value ^ value >> 31
