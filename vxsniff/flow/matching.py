"""Does a segment belong to a flow? By its sequence numbers, where addresses and ports alone do not tell.

Twins are the two copies of a connection that is mirrored at both ends, in two VNIs; reuse is a new connection between
the same ports.
"""

from __future__ import annotations

from vxsniff.flow.flow import CLOSED, Flow
from vxsniff.flow.reassembly import WINDOW_BYTES, HalfStream
from vxsniff.flow.seq import add, diff
from vxsniff.wire.segment import ACK, SYN, Segment


def is_twin(flow: Flow, segment: Segment) -> bool:
    """Whether the segment's numbers lie in this flow's windows, in both directions where both are known."""
    half = flow.half(0 if segment.key == flow.key else 1)
    peer = flow.half(1 if segment.key == flow.key else 0)
    if not half.synchronised and not half.held_bytes:
        # Nothing known of this direction: only its acknowledgement can tell.
        return segment.flags & ACK != 0 and peer.synchronised and _near(peer, segment.ack)
    if segment.flags & SYN:
        return half.synchronised and half.origin_seq == add(segment.seq, 1)
    if not _near(half, segment.seq):
        return False
    return not segment.flags & ACK or not (peer.synchronised or peer.held_bytes) or _near(peer, segment.ack)


def is_reused(flow: Flow, segment: Segment) -> bool:
    """Whether the segment belongs to a new connection between the same ports."""
    half = flow.half(0 if segment.key == flow.key else 1)
    if segment.flags & SYN:
        if not half.synchronised or half.origin_seq == add(segment.seq, 1):
            return False
        # A late SYN of a flow that was picked up midstream lies just before what was picked up.
        return not (flow.midstream and 0 <= diff(half.origin_seq, add(segment.seq, 1)) < WINDOW_BYTES)
    if flow.state != CLOSED or not segment.payload or not half.synchronised:
        return False
    return not -WINDOW_BYTES < diff(segment.seq, half.next_seq) <= 0


def _near(half: HalfStream, seq: int) -> bool:
    return abs(diff(seq, half.next_seq)) < WINDOW_BYTES
