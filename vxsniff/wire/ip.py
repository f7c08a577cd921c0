"""IPv4 (RFC 791 section 3.1) and IPv6 (RFC 8200 sections 3 and 4) headers -> where the transport header is.

The IP length rules: bytes behind it are an Ethernet trailer, bytes that it promises and that are not there were cut
off by the mirror. Checksums are not looked at: a mirror does not recompute them for what it cut, and a sender with
offload leaves them to the card.
"""

from __future__ import annotations

from typing import Final

from dpkt import ip as dpkt_ip

PROTO_TCP: Final[int] = dpkt_ip.IP_PROTO_TCP
PROTO_UDP: Final[int] = dpkt_ip.IP_PROTO_UDP
_FRAGMENT: Final[int] = dpkt_ip.IP_PROTO_FRAGMENT
_AUTHENTICATION: Final[int] = dpkt_ip.IP_PROTO_AH
# Extension headers that all begin with "next header, length in 8-byte units without the first"
# (RFC 8200 section 4; Mobility RFC 6275, HIP RFC 7401, Shim6 RFC 5533).
_SKIPPED: Final[frozenset[int]] = frozenset(
    (dpkt_ip.IP_PROTO_HOPOPTS, dpkt_ip.IP_PROTO_ROUTING, dpkt_ip.IP_PROTO_DSTOPTS, 135, 139, 140)
)

IPV4_MIN_BYTES: Final = 20
IPV6_HEADER_BYTES: Final = 40

OK: Final = 0
SHORT: Final = 1
INVALID: Final = 2


class Packet:
    """What the IP layer says of one packet.

    `start` and `end` bound the transport bytes inside the frame; `missing_bytes` follow behind `end` and were cut
    off. For a fragment, `fragment_offset` (bytes) and `more_fragments` place them inside the whole.
    """

    __slots__ = (
        "addresses",
        "end",
        "fragment_id",
        "fragment_offset",
        "is_fragment",
        "missing_bytes",
        "more_fragments",
        "protocol",
        "start",
        "status",
    )

    def __init__(self, status: int) -> None:
        self.status = status
        self.addresses = b""
        self.protocol = 0
        self.start = 0
        self.end = 0
        self.missing_bytes = 0
        self.is_fragment = False
        self.more_fragments = False
        self.fragment_offset = 0
        self.fragment_id = 0


def parse_ipv4(data: bytes, offset: int, limit: int) -> Packet:
    """The IPv4 packet in `data[offset:limit]`; `status` is OK, SHORT or INVALID."""
    if limit - offset < IPV4_MIN_BYTES:
        return Packet(SHORT)
    header_bytes = (data[offset] & 0x0F) * 4
    if data[offset] >> 4 != 4 or header_bytes < IPV4_MIN_BYTES:
        return Packet(INVALID)
    if limit - offset < header_bytes:
        return Packet(SHORT)
    total_bytes = data[offset + 2] << 8 | data[offset + 3]
    if total_bytes == 0:
        total_bytes = limit - offset  # a super-segment, captured before the card split it
    elif total_bytes < header_bytes:
        return Packet(INVALID)
    packet = Packet(OK)
    packet.protocol = data[offset + 9]
    packet.addresses = data[offset + 12 : offset + 20]
    packet.start = offset + header_bytes
    packet.end = min(limit, offset + total_bytes)
    packet.missing_bytes = offset + total_bytes - packet.end
    word = data[offset + 6] << 8 | data[offset + 7]
    packet.fragment_offset = (word & 0x1FFF) * 8
    packet.more_fragments = word & 0x2000 != 0
    packet.is_fragment = word & 0x3FFF != 0
    packet.fragment_id = data[offset + 4] << 8 | data[offset + 5]
    return packet


def parse_ipv6(data: bytes, offset: int, limit: int) -> Packet:
    """The IPv6 packet in `data[offset:limit]`, its extension headers skipped; `status` is OK, SHORT or INVALID."""
    if limit - offset < IPV6_HEADER_BYTES:
        return Packet(SHORT)
    if data[offset] >> 4 != 6:
        return Packet(INVALID)
    payload_bytes = data[offset + 4] << 8 | data[offset + 5]
    if payload_bytes == 0:
        payload_bytes = limit - offset - IPV6_HEADER_BYTES  # a jumbogram or a super-segment
    packet = Packet(OK)
    packet.addresses = data[offset + 8 : offset + 40]
    packet.end = min(limit, offset + IPV6_HEADER_BYTES + payload_bytes)
    packet.missing_bytes = offset + IPV6_HEADER_BYTES + payload_bytes - packet.end
    protocol = data[offset + 6]
    start = offset + IPV6_HEADER_BYTES
    # Each turn moves on by at least 8 bytes, so the packet's length bounds the walk.
    while protocol in _SKIPPED or protocol == _FRAGMENT or protocol == _AUTHENTICATION:
        if start + 8 > packet.end:
            packet.status = SHORT
            return packet
        if protocol == _FRAGMENT:
            word = data[start + 2] << 8 | data[start + 3]
            packet.is_fragment = word & 0xFFF9 != 0  # an atomic fragment (RFC 6946) is whole
            packet.fragment_offset = word & 0xFFF8
            packet.more_fragments = word & 1 != 0
            packet.fragment_id = int.from_bytes(data[start + 4 : start + 8], "big")
            length = 8
        elif protocol == _AUTHENTICATION:
            length = (data[start + 1] + 2) * 4
        else:
            length = (data[start + 1] + 1) * 8
        protocol = data[start]
        start += length
        if packet.is_fragment and packet.fragment_offset > 0:
            break  # what follows belongs to the whole packet, not to a header
    packet.protocol = protocol
    packet.start = start
    if start > packet.end:
        packet.status = SHORT
    return packet
