"""IP fragments -> the transport bytes of the whole packet (RFC 791 section 3.2, RFC 8200 section 4.5).

Bounds: bytes and packets held in all, fragments and bytes a packet, and the time a packet may wait. The oldest packet
goes first. Fragments that overlap without being equal discard the packet (RFC 5722 section 4, kept for IPv4 as well:
no honest sender overlaps). This lives in wire, not in flow as the first sketch had it: fragments are the IP layer's
matter, and the decoder stays one call.
"""

from __future__ import annotations

from typing import Final

WAIT_NS: Final = 15_000_000_000
MAX_PACKETS: Final = 1024
MAX_BYTES: Final = 8 * 1024 * 1024
MAX_PACKET_BYTES: Final = 65_535
MAX_FRAGMENTS: Final = 64  # 64 KiB in pieces of an Ethernet frame are 45

FragmentKey = tuple[int, bytes, int, int]
"""VNI, addresses, protocol, identification."""


class _Partial:
    __slots__ = ("first_ns", "held_bytes", "pieces", "total_bytes")

    def __init__(self, first_ns: int) -> None:
        self.first_ns = first_ns
        self.pieces: dict[int, bytes] = {}
        self.held_bytes = 0
        self.total_bytes = -1  # unknown until the last fragment is here


class Defragmenter:
    """Holds fragments until their packet is whole. `held_bytes` and the counters may be read at any time."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_packets: int = MAX_PACKETS) -> None:
        self._partials: dict[FragmentKey, _Partial] = {}  # in order of their first fragment
        self._max_bytes = max_bytes
        self._max_packets = max_packets
        self.held_bytes = 0
        self.joined = 0
        self.expired = 0
        self.evicted = 0
        self.invalid = 0

    def __len__(self) -> int:
        return len(self._partials)

    def add(self, key: FragmentKey, offset: int, more: bool, payload: bytes, ts_ns: int) -> bytes | None:
        """Takes one fragment; returns the whole packet's transport bytes when this was the missing piece."""
        self.expire(ts_ns)
        partial = self._partials.get(key)
        if partial is None:
            if len(self._partials) >= self._max_packets:
                self._drop_oldest()
            partial = self._partials[key] = _Partial(ts_ns)
        end = offset + len(payload)
        known = partial.pieces.get(offset)
        if known is not None and known == payload:
            return None  # the same fragment once more
        if known is not None or not payload or end > MAX_PACKET_BYTES or not self._fits(partial, offset, end, more):
            self._drop(key)
            self.invalid += 1
            return None
        partial.pieces[offset] = payload
        partial.held_bytes += len(payload)
        self.held_bytes += len(payload)
        if not more:
            partial.total_bytes = end
        if partial.held_bytes == partial.total_bytes:
            whole = b"".join(partial.pieces[start] for start in sorted(partial.pieces))
            self._drop(key)
            self.joined += 1
            return whole
        while self.held_bytes > self._max_bytes:
            self._drop_oldest()
        return None

    def expire(self, now_ns: int) -> None:
        """Lets go of packets that have waited too long."""
        while self._partials:
            key = next(iter(self._partials))
            if now_ns - self._partials[key].first_ns < WAIT_NS:
                return
            self._drop(key)
            self.expired += 1

    @staticmethod
    def _fits(partial: _Partial, offset: int, end: int, more: bool) -> bool:
        if len(partial.pieces) >= MAX_FRAGMENTS:
            return False
        if not more and partial.total_bytes not in (-1, end):
            return False
        total = end if not more else partial.total_bytes
        for start, piece in partial.pieces.items():
            stop = start + len(piece)
            if (offset < stop and start < end) or (total != -1 and stop > total):
                return False
        return total == -1 or end <= total

    def _drop_oldest(self) -> None:
        self._drop(next(iter(self._partials)))
        self.evicted += 1

    def _drop(self, key: FragmentKey) -> None:
        self.held_bytes -= self._partials.pop(key).held_bytes
