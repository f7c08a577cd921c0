"""One direction of a TCP connection: segments in any order -> bytes in order, first copy wins, holes declared.

Sequence numbers are unwrapped at the door: inside, a position is a plain integer that never wraps, so that order is
`<` and a distance is `-`. Position 0 is the first byte after the SYN, or the first byte that was picked up.

A half-stream is in one of two states. *Unsynchronised*: no SYN was seen; segments are held until one comes, or until
the table decides to begin at one that looks like the start of a message. *Synchronised*: segments at `next_pos` are
delivered at once; those ahead are held behind a hole. The table declares a hole lost (`skip_hole`); this module only
knows that it is there.

Bounds: MAX_HELD_SEGMENTS and MAX_HELD_BYTES a half-stream; WINDOW_BYTES ahead of `next_pos`.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from mypy_extensions import mypyc_attr

from vxsniff.flow import seq as sequence

WINDOW_BYTES: Final = 8 * 1024 * 1024
"""How far ahead of the expected byte a segment may lie. Larger windows exist, but not on one API connection."""
MAX_HELD_SEGMENTS: Final = 4096
MAX_HELD_BYTES: Final = 4 * 1024 * 1024

HELD_OVERHEAD_BYTES: Final = 200
"""What a held segment costs besides its payload (tuple, integers, bytes header, list slots), measured."""


class Piece(NamedTuple):
    """Bytes in order, with what else the segment that brought them said. `missing_bytes` follow the payload."""

    pos: int
    payload: bytes
    missing_bytes: int
    ack: int
    ts_ns: int

    @property
    def end(self) -> int:
        return self.pos + len(self.payload) + self.missing_bytes


@mypyc_attr(acyclic=True)
class HalfStream:
    """See the module's docstring. Charged bytes are `held_bytes`, 0 when nothing is held; counters are the table's.

    With very many connections a call costs what it touches of memory that is in no cache: what each segment needs
    stands together here, and no other object has to be asked whether anything is held.
    """

    __slots__ = (
        "_held",
        "acked_pos",
        "fin_pos",
        "held_bytes",
        "midstream",
        "next_pos",
        "next_seq",
        "origin_seq",
        "searching",
        "synchronised",
        "waits_at",
        "waits_since_ns",
    )

    def __init__(self) -> None:
        self.synchronised = False
        self.midstream = False  # it began without a SYN: whole messages may lie before
        self.searching = False  # unsynchronised, and the time to wait for a SYN is over
        self.next_pos = 0
        self.next_seq = 0  # the sequence number of next_pos, kept beside it for the fast path
        self.acked_pos = 0  # the other side has everything before this position
        self.fin_pos = -1
        self.held_bytes = 0
        self.origin_seq = 0  # the sequence number of position 0
        self.waits_at: int | None = None  # the position that the table waits for, and since when
        self.waits_since_ns = 0
        self._held: list[Piece] = []  # sorted, not overlapping

    def position(self, seq: int) -> int:
        """The position of a sequence number, taken to be within 2**31 of the expected byte."""
        return self.next_pos + sequence.diff(seq, self.next_seq)

    def seq(self, pos: int) -> int:
        """The sequence number of a position."""
        return sequence.add(self.origin_seq, pos)

    def synchronise(self, seq: int) -> None:
        """The first byte is the one at `seq`; what is held is moved to positions counted from there.

        Held bytes before `seq` are dropped: the caller has counted them.
        """
        shift = sequence.diff(self.origin_seq, seq)
        pieces = self._held
        self._held = []
        self.held_bytes = 0
        if self.fin_pos >= 0:
            self.fin_pos += shift
        self.acked_pos = 0
        self.origin_seq = seq
        self.next_pos = 0
        self.next_seq = seq
        self.synchronised = True
        for piece in pieces:
            self.hold(piece._replace(pos=piece.pos + shift))

    @property
    def held_segments(self) -> int:
        return len(self._held)

    @property
    def held_payload_bytes(self) -> int:
        return self.held_bytes - HELD_OVERHEAD_BYTES * len(self._held)

    @property
    def held(self) -> list[Piece]:
        """What is held, in order; not to be changed."""
        return self._held

    @property
    def is_full(self) -> bool:
        return self.held_bytes > MAX_HELD_BYTES or len(self._held) > MAX_HELD_SEGMENTS

    @property
    def is_finished(self) -> bool:
        return self.synchronised and 0 <= self.fin_pos <= self.next_pos

    @property
    def has_hole(self) -> bool:
        """Whether bytes are known to exist that have not come; without a SYN, whether anything waits for one."""
        if not self.synchronised:
            return self.held_bytes > 0 or self.fin_pos >= 0
        return self.held_bytes > 0 or self.acked_pos > self.next_pos or self.fin_pos > self.next_pos

    def advance(self, length: int) -> None:
        """The next `length` bytes were delivered or declared lost."""
        self.next_pos += length
        self.next_seq = (self.next_seq + length) % sequence.MODULUS

    def hold(self, piece: Piece) -> int:
        """Keeps what is new of a piece that lies ahead; the first copy of a byte wins.

        Returns how many of its payload bytes were there already.
        """
        held = self._held
        duplicate = 0
        if piece.pos < self.next_pos and self.synchronised:
            piece, trimmed = trim_front(piece, self.next_pos)
            duplicate += trimmed
        index = bisect_right(held, piece.pos, key=_position_of)
        if index > 0 and held[index - 1].end > piece.pos:
            piece, trimmed = trim_front(piece, held[index - 1].end)
            duplicate += trimmed
        while piece.end > piece.pos:
            if index == len(held) or held[index].pos >= piece.end:
                self._insert(index, piece)
                break
            # The part before the next held piece is new, the part under it is not.
            before = _cut_back(piece, held[index].pos)
            if before.end > before.pos:
                self._insert(index, before)
                index += 1
            piece, trimmed = trim_front(piece, held[index].end)
            duplicate += trimmed - len(before.payload)
            index += 1
        return duplicate

    def _insert(self, index: int, piece: Piece) -> None:
        self._held.insert(index, piece)
        self.held_bytes += len(piece.payload) + HELD_OVERHEAD_BYTES

    def take_ready(self) -> list[Piece]:
        """The held pieces that are next in order; the caller delivers them and advances `next_pos`."""
        held = self._held
        count = 0
        pos = self.next_pos
        while count < len(held) and held[count].pos <= pos:
            pos = held[count].end
            count += 1
        return self._take(count)

    def take_all(self) -> list[Piece]:
        """Everything held, in order, which is then no longer held."""
        return self._take(len(self._held))

    def _take(self, count: int) -> list[Piece]:
        taken = self._held[:count]
        if taken:
            del self._held[:count]
            for piece in taken:
                self.held_bytes -= len(piece.payload) + HELD_OVERHEAD_BYTES
        return taken

    def hole_end(self) -> int:
        """Up to where bytes are missing: the first held piece, else what was acknowledged or announced by FIN."""
        if self._held:
            return self._held[0].pos
        if self.fin_pos >= 0:
            return self.fin_pos
        return self.acked_pos


def trim_front(piece: Piece, pos: int) -> tuple[Piece, int]:
    """`piece` without what lies before `pos`, and how many payload bytes that were."""
    cut = pos - piece.pos
    size = len(piece.payload)
    if cut <= size:
        return piece._replace(pos=pos, payload=piece.payload[cut:]), cut
    missing = max(0, piece.missing_bytes - (cut - size))
    return piece._replace(pos=pos, payload=b"", missing_bytes=missing), size


def _cut_back(piece: Piece, pos: int) -> Piece:
    """`piece` without what lies at and behind `pos`."""
    keep = max(0, pos - piece.pos)
    size = len(piece.payload)
    if keep <= size:
        return piece._replace(payload=piece.payload[:keep], missing_bytes=0)
    return piece._replace(missing_bytes=keep - size)


def _position_of(piece: Piece) -> int:
    return piece.pos
