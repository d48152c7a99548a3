"""Generators that report what they do and return a result."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")


def exhaust(generator: Generator[Any, None, T]) -> T:
    """Run a generator to its end and return what it returns; what it yields is dropped."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            result: T = end.value
            return result
