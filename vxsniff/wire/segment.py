"""The value that leaves the wire: one TCP segment with the endpoints it travelled between.

`key` is cut straight out of the packet, where source address, destination address, source port and destination
port lie side by side (an IPv4 header without options, an IPv6 header without extensions): one slice is the whole
lookup key of a direction. It has 12 bytes for IPv4 and 36 for IPv6.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from mypy_extensions import i64, mypyc_attr

NO_VNI: Final = -1
"""The VNI of a frame that came without a tunnel around it."""

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

IPV4_KEY_BYTES: Final = 12


@mypyc_attr(acyclic=True, free_list_len=1)
class Segment:
    """One TCP segment (RFC 9293 section 3.1).

    `missing_bytes` is what the IP length promised behind `payload` and the mirror cut off: a gap of known size.
    `seq` and `ack` are 32-bit; `ack` means nothing unless `flags & ACK`. `ts_ns` is the capture time.
    """

    __slots__ = ("ack", "flags", "key", "missing_bytes", "payload", "seq", "ts_ns", "vni")

    def __init__(
        self, vni: i64, key: bytes, seq: i64, ack: i64, flags: i64, payload: bytes, missing_bytes: i64, ts_ns: i64
    ) -> None:
        self.vni = vni
        self.key = key
        self.seq = seq
        self.ack = ack
        self.flags = flags
        self.payload = payload
        self.missing_bytes = missing_bytes
        self.ts_ns = ts_ns


def reverse_key(key: bytes) -> bytes:
    """The key of the opposite direction."""
    if len(key) == IPV4_KEY_BYTES:
        return key[4:8] + key[0:4] + key[10:12] + key[8:10]
    return key[16:32] + key[0:16] + key[34:36] + key[32:34]


def source_of(key: bytes) -> tuple[str, int]:
    """The sender's address as text, and its port."""
    if len(key) == IPV4_KEY_BYTES:
        return str(ipaddress.IPv4Address(key[0:4])), int.from_bytes(key[8:10], "big")
    return str(ipaddress.IPv6Address(key[0:16])), int.from_bytes(key[32:34], "big")
