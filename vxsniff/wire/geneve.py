"""GENEVE (RFC 8926 section 3.4), as a Gateway Load Balancer endpoint wraps mirrored packets.

     0                   1                   2                   3
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |Ver|  Opt Len  |O|C|    Rsvd.  |          Protocol Type        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |        Virtual Network Identifier (VNI)       |    Reserved   |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                    Variable-Length Options                    |

Options are skipped by their length, in units of four bytes: AWS puts its endpoint, attachment and flow ids there.
"""

from __future__ import annotations

from typing import Final

HEADER_BYTES: Final = 8
PROTOCOL_ETHERNET: Final = 0x6558  # Transparent Ethernet Bridging


def payload_offset(data: bytes, offset: int, limit: int) -> int:
    """Where the payload of the GENEVE header at `offset` begins; -1 when version or length say it is none. The frame
    ends at `limit`.
    """
    if limit < offset + HEADER_BYTES or data[offset] >> 6 != 0:
        return -1
    start = offset + HEADER_BYTES + (data[offset] & 0x3F) * 4
    return start if start <= limit else -1
