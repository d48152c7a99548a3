"""Which of N prompts an iteration sees: a pseudo-random order of any length that takes no memory.

Each epoch visits every prompt once, in an order of its own. Where a run is in it follows from the seed and
the iteration, so that nothing has to be kept to go on at the exact position, and the processes of a team
share an epoch without seeing anything twice.
"""

from __future__ import annotations

_ROUNDS = 6
_WORD = 2**64 - 1


def drawn(count: int, seed: int, start: int, many: int) -> list[int]:
    """The numbers, 0 to count - 1, at the places [start, start + many) of an endless order.

    Args:
        count: how many there are; at least 1.
        start: how many were drawn before.
    """
    return [
        shuffled(place % count, count, seed * 1_000_003 + place // count)
        for place in range(start, start + many)
    ]


def shuffled(place: int, count: int, seed: int) -> int:
    """What stands at a place of the order of 0 to count - 1 that a seed gives.

    A Feistel network permutes the next larger power of four; what it gives beyond `count` is permuted again
    until it lies below (Black and Rogaway 2002, cycle walking): a permutation without a table.
    """
    half = ((count - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_mixed(right + (seed * _ROUNDS + number << 32)) & mask)
        place = left << half | right
        if place < count:
            return place


def _mixed(value: int) -> int:
    """64 bits in which every bit of the value tells (splitmix64's finaliser, Vigna 2015)."""
    value = (value + 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _WORD
    return value ^ value >> 31
