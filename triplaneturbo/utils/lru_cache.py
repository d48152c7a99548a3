"""A thread-safe LRU cache."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

import cachetools

Value = TypeVar("Value")


class LRUCache(Generic[Value]):
    """cachetools.LRUCache with a lock: the least recently used value is evicted first.

    Args:
        size: maximum number of values.
    """

    def __init__(self, size: int) -> None:
        self._values: cachetools.LRUCache[object, Value] = cachetools.LRUCache(size)
        self._lock = threading.Lock()

    def get(self, key: object) -> Value | None:
        """Return the value for `key`, or None if it is not cached."""
        with self._lock:
            return self._values.get(key)

    def put(self, key: object, value: Value) -> None:
        """Store a value, evicting the least recently used one if the cache is full."""
        with self._lock:
            self._values[key] = value

    def drop(self, key: object) -> None:
        """Remove the value for `key`, if it is cached."""
        with self._lock:
            self._values.pop(key, None)
