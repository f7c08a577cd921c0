"""The bytes of a connection -> the Ethernet frames that a mirror would have seen of them, and VXLAN around those.

dpkt writes the headers, checksums included; sequence numbers, acknowledgements and the handshake are kept here.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, NamedTuple

from dpkt import ethernet, ip, ip6, tcp

CLIENT: Final = 0
SERVER: Final = 1

_MACS: Final = (b"\x02\x00\x00\x00\x00\x01", b"\x02\x00\x00\x00\x00\x02")


class Endpoint(NamedTuple):
    """Address (IPv4 or IPv6, as text) and port."""

    address: str
    port: int


class Conversation:
    """One TCP connection between two endpoints, as the frames of both directions in order.

    Sequence numbers begin at the two `isns` and wrap as they do on the wire; `mss` bounds a segment's payload.
    """

    def __init__(
        self, client: Endpoint, server: Endpoint, isns: tuple[int, int] = (1000, 5000), mss: int = 1460
    ) -> None:
        self._ends = (client, server)
        self._packed = tuple(ipaddress.ip_address(end.address).packed for end in self._ends)
        self.seqs = [isns[0], isns[1]]  # the next byte of each side
        self._mss = mss

    def open(self) -> list[bytes]:
        """SYN, SYN-ACK, ACK."""
        syn = self.segment(CLIENT, tcp.TH_SYN)
        self._move(CLIENT, 1)
        syn_ack = self.segment(SERVER, tcp.TH_SYN | tcp.TH_ACK)
        self._move(SERVER, 1)
        return [syn, syn_ack, self.segment(CLIENT, tcp.TH_ACK)]

    def send(self, side: int, data: bytes) -> list[bytes]:
        """One side sends; the other acknowledges once."""
        frames = []
        for start in range(0, len(data), self._mss):
            payload = data[start : start + self._mss]
            last = start + self._mss >= len(data)
            frames.append(self.segment(side, tcp.TH_ACK | (tcp.TH_PUSH if last else 0), payload))
            self._move(side, len(payload))
        frames.append(self.segment(1 - side, tcp.TH_ACK))
        return frames

    def close(self, side: int) -> list[bytes]:
        """One side sends FIN; the other acknowledges it."""
        fin = self.segment(side, tcp.TH_FIN | tcp.TH_ACK)
        self._move(side, 1)
        return [fin, self.segment(1 - side, tcp.TH_ACK)]

    def reset(self, side: int) -> list[bytes]:
        return [self.segment(side, tcp.TH_RST | tcp.TH_ACK)]

    def _move(self, side: int, size: int) -> None:
        self.seqs[side] = (self.seqs[side] + size) % 2**32

    def segment(self, side: int, flags: int, payload: bytes = b"") -> bytes:
        """A frame from `side` at its next byte, acknowledging all that the other side has sent."""
        source, destination = self._ends[side], self._ends[1 - side]
        segment = tcp.TCP(
            sport=source.port,
            dport=destination.port,
            seq=self.seqs[side],
            ack=self.seqs[1 - side] if flags & tcp.TH_ACK else 0,
            flags=flags,
            win=65535,
            data=payload,
        )
        packet: ip.IP | ip6.IP6
        if len(self._packed[0]) == 4:
            packet = ip.IP(src=self._packed[side], dst=self._packed[1 - side], p=ip.IP_PROTO_TCP, ttl=64, data=segment)
            kind = ethernet.ETH_TYPE_IP
        else:
            packet = ip6.IP6(
                src=self._packed[side], dst=self._packed[1 - side], nxt=ip.IP_PROTO_TCP, hlim=64, data=segment
            )
            packet.plen = len(segment)
            kind = ethernet.ETH_TYPE_IP6
        return bytes(ethernet.Ethernet(src=_MACS[side], dst=_MACS[1 - side], type=kind, data=packet))


def in_vxlan(frame: bytes, vni: int) -> bytes:
    """A mirrored frame as the UDP payload that is sent to the target (RFC 7348 section 5)."""
    return struct.pack("!B3xI", 0x08, vni << 8) + frame


def in_geneve(frame: bytes, vni: int, options: bytes = b"", protocol: int = 0x6558) -> bytes:
    """The same in GENEVE (RFC 8926 section 3.4); `options` is a multiple of four bytes."""
    return struct.pack("!BBHI", len(options) // 4, 0, protocol, vni << 8) + options + frame
