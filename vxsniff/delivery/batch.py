"""Some lines that are delivered together."""

from __future__ import annotations

import time

from isal import isal_zlib


class Batch:
    """Lines, as they are or packed (zlib, RFC 1950); the other form is made when it is asked for, and kept.

    `row` is the batch's place in the spool, 0 when it is in memory only. `closed_s` is when it was complete, on the
    monotonic clock.
    """

    __slots__ = ("_lines", "_packed", "calls", "closed_s", "row")

    def __init__(self, calls: int, lines: bytes | None = None, packed: bytes | None = None, row: int = 0) -> None:
        self.calls = calls
        self.row = row
        self.closed_s = time.monotonic()
        self._lines = lines
        self._packed = packed

    @property
    def lines(self) -> bytes:
        if self._lines is None:
            assert self._packed is not None
            self._lines = bytes(isal_zlib.decompress(self._packed))
        return self._lines

    @property
    def packed(self) -> bytes:
        if self._packed is None:
            assert self._lines is not None
            self._packed = bytes(isal_zlib.compress(self._lines))
        return self._packed

    @property
    def size(self) -> int:
        """Bytes that it holds in memory, near enough."""
        return len(self._lines or b"") + len(self._packed or b"")
