"""Bytes -> choices, so that a fuzzer that changes a byte changes a choice. Beyond the end everything is 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def number(self, below: int) -> int:
        """A number from 0 to `below` - 1, of at most 16 bits."""
        size = 1 if below <= 256 else 2
        return int.from_bytes(self.take(size), "big") % below

    def choice(self, options: Sequence[T]) -> T:
        return options[self.number(len(options))]

    def take(self, size: int) -> bytes:
        """At most so many bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken
