"""Invariant: whatever the bytes, a frame becomes one segment or one counted reason, and nothing is raised.

Also: what a segment holds stands in what came; the defragmenter's account is what it holds, within its bounds, and
nothing of it outlives its time.
"""

from __future__ import annotations

import struct

from fuzz.reader import Reader
from tests.builders import CLIENT, Conversation, Endpoint, ethernet, get, in_vxlan, ipv4, ipv6, tcp, udp
from vxsniff.demo.frames import in_geneve
from vxsniff.wire import defrag
from vxsniff.wire.decode import Decoder
from vxsniff.wire.segment import IPV4_KEY_BYTES, reverse_key, source_of
from vxsniff.wire.vxlan import VniFilter

LINK_TYPES = (1, 0, 12, 14, 101, 108, 113, 228, 229, 276, 999)
STEPS_NS = (0, 1_000, 1_000_000_000, defrag.WAIT_NS)
MAX_HELD_BYTES, MAX_HELD_PACKETS = 2048, 3


def one_input(data: bytes) -> None:
    reader = Reader(data)
    decoder = Decoder(VniFilter(unwanted=frozenset([9])), frozenset([80]) if reader.number(2) else frozenset())
    decoder.fragments = defrag.Defragmenter(MAX_HELD_BYTES, MAX_HELD_PACKETS)
    now_ns = frames = came_bytes = payload_bytes = 0
    while not reader.is_empty and frames < 64:
        kind = reader.number(3)
        link_type = reader.choice(LINK_TYPES) if kind == 2 else 0
        now_ns += reader.choice(STEPS_NS)
        frame = reader.take(reader.number(1500))
        frames += 1
        came_bytes += len(frame)
        if kind == 0:
            segment = decoder.vxlan_datagram(frame, now_ns)
        elif kind == 1:
            segment = decoder.geneve_datagram(frame, now_ns)
        else:
            segment = decoder.frame(frame, link_type, now_ns)
        assert decoder.frames == frames == decoder.segments + sum(decoder.reasons)
        fragments = decoder.fragments
        assert 0 <= fragments.held_bytes <= MAX_HELD_BYTES
        assert len(fragments) <= MAX_HELD_PACKETS
        if segment is None:
            continue
        payload_bytes += len(segment.payload)
        assert payload_bytes <= came_bytes, "bytes that never came"
        assert len(segment.key) in (IPV4_KEY_BYTES, 36)
        assert reverse_key(reverse_key(segment.key)) == segment.key
        assert source_of(segment.key)[1] < 65536
        assert 0 <= segment.missing_bytes < 65536
        assert segment.ts_ns == now_ns
        assert segment.vni != 9
    decoder.fragments.expire(now_ns + defrag.WAIT_NS)
    assert decoder.fragments.held_bytes == len(decoder.fragments) == 0


def packed(kind: int, *frames: bytes, link: int = 0) -> bytes:
    """An input of these frames."""
    parts = [b"\0"]
    for frame in frames:
        parts.append(
            bytes([kind]) + (bytes([link]) if kind == 2 else b"") + b"\1" + struct.pack("!H", len(frame)) + frame
        )
    return b"".join(parts)


def seeds() -> list[bytes]:
    frames = Conversation(Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 80)).open()
    frames += Conversation(Endpoint("fd00::1", 40000), Endpoint("fd00::2", 80)).send(CLIENT, get("/"))
    segment = tcp(payload=get("/"))
    pieces = [ethernet(ipv4(segment[:24], fragment=0x2000)), ethernet(ipv4(segment[24:], fragment=3))]
    tagged = ethernet(ipv4(segment), tags=[(0x8100, 5), (0x88A8, 7)])
    options = ethernet(ipv4(segment, options=b"\1" * 8))
    extended = ethernet(ipv6(b"\x06\0\1\4\0\0\0\0" + segment, following=0), kind=0x86DD)
    nested = ethernet(ipv4(udp(in_vxlan(frames[0], 5)), proto=17))
    return [
        packed(0, *(in_vxlan(frame, 123) for frame in (*frames, tagged, options, extended, nested))),
        packed(0, *(in_vxlan(piece, 7) for piece in pieces)),
        packed(1, *(in_geneve(frame, 123) for frame in frames)),
        packed(2, *frames, *pieces, nested),
        packed(2, ipv4(segment), ipv6(segment), link=4),
        packed(2, b"\0" * 14 + b"\x08\0" + ipv4(segment), link=6),
        packed(2, b"\x08\0" + b"\0" * 18 + ipv4(segment), link=9),
    ]
