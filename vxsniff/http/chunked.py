"""The chunked transfer coding (RFC 9112 section 7.1), one byte stream to another, in pieces of any size.

llhttp would decode it as well, but says neither where in its input a message ended, which pairing after a loss and a
call's identity rest on, nor can it step over bytes that the mirror lost inside a chunk of known size.
Bounds: a size line (with extensions) and all trailers together have MAX_LINE_BYTES.
"""

from __future__ import annotations

from typing import Final

from vxsniff.http.headers import Header
from vxsniff.http.message import Message

MAX_LINE_BYTES: Final = 16_384
MAX_CHUNK_DIGITS: Final = 15

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4
_FAILED: Final = 5

_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


class ChunkedDecoder:
    """Feeds a message's body; `done` and `failed` tell when to stop, `trailers` what came after the last chunk."""

    __slots__ = ("_limit_bytes", "_line", "_message", "_remaining", "_state", "_trailer_bytes", "trailers")

    def __init__(self, message: Message, limit_bytes: int) -> None:
        self._message = message
        self._limit_bytes = limit_bytes
        self._state = _SIZE
        self._line = b""
        self._remaining = 0
        self._trailer_bytes = 0
        self.trailers: list[Header] = []

    @property
    def done(self) -> bool:
        return self._state == _DONE

    @property
    def failed(self) -> bool:
        return self._state == _FAILED

    @property
    def skippable_bytes(self) -> int:
        """How many bytes from here on are data of the current chunk: that many may be lost without losing the end."""
        return self._remaining if self._state == _DATA else 0

    def skip(self, size: int) -> None:
        """`size` bytes, at most `skippable_bytes`, will never come."""
        self._remaining -= size
        if self._remaining == 0:
            self._state = _DATA_END

    def feed(self, data: bytes, pos: int) -> int:
        """Takes bytes from `pos` on; returns where it stopped: at the end of the data, or of the body."""
        size = len(data)
        while pos < size and self._state < _DONE:
            if self._state == _DATA:
                take = min(self._remaining, size - pos)
                self._message.add_body(data[pos : pos + take], self._limit_bytes)
                pos += take
                self.skip(take)
                continue
            line_end = data.find(b"\n", pos)
            if line_end < 0:
                self._line += data[pos:]
                if len(self._line) > MAX_LINE_BYTES:
                    self._state = _FAILED
                return size
            line = self._line + data[pos:line_end]
            self._line = b""
            pos = line_end + 1
            self._take_line(line.rstrip(b"\r"))
        return pos

    def _take_line(self, line: bytes) -> None:
        if self._state == _SIZE:
            digits = line.partition(b";")[0].strip(b" \t")
            if not 0 < len(digits) <= MAX_CHUNK_DIGITS or not _HEX.issuperset(digits):
                self._state = _FAILED
                return
            self._remaining = int(digits, 16)
            self._state = _DATA if self._remaining else _TRAILERS
        elif self._state == _DATA_END:
            self._state = _FAILED if line else _SIZE
        elif line:
            self._trailer_bytes += len(line) + 2
            name, colon, value = line.partition(b":")
            if self._trailer_bytes > MAX_LINE_BYTES or not colon:
                self._state = _FAILED
                return
            self.trailers.append(Header(name.strip(b" \t"), value))
        else:
            self._state = _DONE
