"""Frames and tunnelled datagrams -> Segment. One Decoder a worker.

The common case, an untagged or once tagged frame with a plain IPv4 or IPv6 header and TCP, is read at fixed offsets
in one function; everything else takes the walk. Bad input is a reason in `reasons`, never an exception.

    datagram = VXLAN (8) | Ethernet (14) [802.1Q (4)] | IPv4 (20) | TCP (20..) | payload
    offset     0           8                            22          42
"""

from __future__ import annotations

from typing import Final

from dpkt import ethernet as dpkt_ethernet
from dpkt import pcap as dpkt_pcap
from mypy_extensions import i64

from vxsniff.wire import geneve, ip, reasons, vxlan
from vxsniff.wire.defrag import Defragmenter
from vxsniff.wire.segment import NO_VNI, Segment
from vxsniff.wire.vxlan import VniFilter

ETHERNET_HEADER_BYTES: Final = 14
ETHERTYPE_IPV4: Final[int] = dpkt_ethernet.ETH_TYPE_IP
ETHERTYPE_IPV6: Final[int] = dpkt_ethernet.ETH_TYPE_IP6
ETHERTYPES_TAG: Final[frozenset[int]] = frozenset(
    (dpkt_ethernet.ETH_TYPE_8021Q, dpkt_ethernet.ETH_TYPE_8021AD, 0x9100)  # 0x9100: QinQ before 802.1ad
)
MAX_TAGS: Final = 8
MAX_TUNNELS: Final = 4  # Geneve, VXLAN, and room for a mirror of a mirror

PORT_VXLAN: Final = 4789
PORT_GENEVE: Final = 6081

TUNNEL_NONE: Final = 0
TUNNEL_VXLAN: Final = 1
TUNNEL_GENEVE: Final = 2

# How many bytes stand before the EtherType or the IP header, by link type (https://www.tcpdump.org/linktypes.html).
_LINK_RAW: Final = frozenset((dpkt_pcap.DLT_RAW, 12, 14, 101, dpkt_pcap.DLT_IPV4, dpkt_pcap.DLT_IPV6))
_LINK_LOOP: Final = frozenset((dpkt_pcap.DLT_NULL, dpkt_pcap.DLT_LOOP, 108))
LINK_ETHERNET: Final[int] = dpkt_pcap.DLT_EN10MB
LINK_SLL: Final[int] = dpkt_pcap.DLT_LINUX_SLL
LINK_SLL2: Final[int] = dpkt_pcap.DLT_LINUX_SLL2


class Decoder:
    """Decodes; filters by VNI and by application port; reassembles IP fragments; counts what became of each frame.

    `unwrap` tells whether UDP inside a plain frame is looked into for tunnels (capture files and devices).
    After every call `frames == segments + sum(reasons)`.
    """

    def __init__(self, vnis: VniFilter, ports: frozenset[int] = frozenset(), unwrap: bool = True) -> None:
        self.vnis = vnis
        self.ports = ports
        self._unwrap = unwrap
        self.fragments = Defragmenter()
        self.frames = 0
        self.frame_bytes = 0
        self.segments = 0
        self.cut_bytes = 0
        self.reasons: list[int] = [0] * len(reasons.NAMES)

    def vxlan_datagram(self, data: bytes, ts_ns: i64) -> Segment | None:
        """One UDP payload from the VXLAN port."""
        self.frames += 1
        self.frame_bytes += len(data)
        return self._plain_vxlan(data, 0, len(data), ts_ns)

    def _plain_vxlan(self, data: bytes, start: i64, limit: i64, ts_ns: i64) -> Segment | None:
        """A VXLAN header at `start`, and the common case behind it; anything else takes the walk."""
        if limit - start >= 62 and data[start] & 0x0C == 0x08:
            vni = _u24(data, start + 4)
            if not self.vnis.passes(vni):
                return self._no(reasons.VNI_FILTERED)
            offset = start + 22
            ethertype = data[start + 20] << 8 | data[start + 21]
            if ethertype == 0x8100:
                offset = start + 26
                ethertype = data[start + 24] << 8 | data[start + 25]
            # Plain IPv4: 20-byte header, no fragment, TCP with its whole header here.
            if (
                ethertype == 0x0800
                and data[offset] == 0x45
                and data[offset + 9] == 6
                and data[offset + 6] & 0x3F == 0
                and data[offset + 7] == 0
            ):
                total = data[offset + 2] << 8 | data[offset + 3]
                tcp = offset + 20
                end = offset + total
                if end <= limit and total >= 40:
                    return self._tcp(data, tcp, end, 0, data[offset + 12 : offset + 24], vni, ts_ns)
            elif ethertype == 0x86DD and limit >= offset + 60 and data[offset] >> 4 == 6 and data[offset + 6] == 6:
                payload_bytes = data[offset + 4] << 8 | data[offset + 5]
                end = offset + 40 + payload_bytes
                if end <= limit and payload_bytes >= 20:
                    return self._tcp(data, offset + 40, end, 0, data[offset + 8 : offset + 44], vni, ts_ns)
        return self._vxlan(data, start, limit, NO_VNI, 0, ts_ns)

    def geneve_datagram(self, data: bytes, ts_ns: i64) -> Segment | None:
        """One UDP payload from the GENEVE port."""
        self.frames += 1
        self.frame_bytes += len(data)
        return self._geneve(data, 0, len(data), 0, ts_ns)

    def frame(self, data: bytes, link_type: int, ts_ns: i64) -> Segment | None:
        """One frame of a capture file or a device, by its link type. Tunnels inside are unwrapped."""
        return self.frame_in(data, 0, len(data), link_type, ts_ns)

    def frame_in(self, data: bytes, start: i64, limit: i64, link_type: int, ts_ns: i64) -> Segment | None:
        """The same for one that stands there in `data`."""
        self.frames += 1
        self.frame_bytes += limit - start
        if link_type == LINK_ETHERNET:
            packet = start + 14
            # Plain IPv4 again, whole and no fragment: with TCP in it, or a VXLAN datagram as captured on the target.
            if (
                limit >= packet + 40
                and data[start + 12] == 0x08
                and data[start + 13] == 0
                and data[packet] == 0x45
                and data[packet + 6] & 0x3F == 0
                and data[packet + 7] == 0
            ):
                end = packet + (data[packet + 2] << 8 | data[packet + 3])
                inner = packet + 20
                if data[packet + 9] == 6 and inner + 20 <= end <= limit and self.vnis.passes(NO_VNI):
                    return self._tcp(data, inner, end, 0, data[packet + 12 : packet + 24], NO_VNI, ts_ns)
                if (
                    data[packet + 9] == 17
                    and self._unwrap
                    and inner + 8 <= end <= limit
                    and data[inner + 2] << 8 | data[inner + 3] == PORT_VXLAN
                ):
                    return self._plain_vxlan(data, inner + 8, end, ts_ns)
            return self._ethernet(data, start, limit, NO_VNI, 0, ts_ns)
        if link_type in _LINK_RAW:
            return self._ip(data, start, limit, NO_VNI, 0, ts_ns)
        if link_type in _LINK_LOOP:
            return self._ip(data, start + 4, limit, NO_VNI, 0, ts_ns)
        if link_type == LINK_SLL:
            return self._ethertype(data, start + 14, limit, NO_VNI, 0, ts_ns)
        if link_type == LINK_SLL2:
            if limit < start + 20:
                return self._no(reasons.FRAME_SHORT)
            ethertype = data[start] << 8 | data[start + 1]
            if ethertype == ETHERTYPE_IPV4 or ethertype == ETHERTYPE_IPV6:
                return self._ip(data, start + 20, limit, NO_VNI, 0, ts_ns)
            return self._no(reasons.NOT_IP)
        return self._no(reasons.LINK_UNKNOWN)

    def _no(self, reason: int) -> Segment | None:
        self.reasons[reason] += 1
        return None

    def _vxlan(self, data: bytes, offset: i64, limit: i64, vni: i64, depth: i64, ts_ns: i64) -> Segment | None:
        if limit - offset < vxlan.HEADER_BYTES:
            return self._no(reasons.TUNNEL_SHORT)
        flags = data[offset]
        if flags & vxlan.FLAG_VNI == 0 or depth >= MAX_TUNNELS:
            return self._no(reasons.TUNNEL_INVALID)
        vni = data[offset + 4] << 16 | data[offset + 5] << 8 | data[offset + 6]
        if not self.vnis.passes(vni):
            return self._no(reasons.VNI_FILTERED)
        inner = offset + vxlan.HEADER_BYTES
        if flags & vxlan.FLAG_NEXT_PROTOCOL:
            protocol = data[offset + 3]
            if protocol == vxlan.NEXT_PROTOCOL_IPV4 or protocol == vxlan.NEXT_PROTOCOL_IPV6:
                return self._ip(data, inner, limit, vni, depth + 1, ts_ns)
            if protocol != vxlan.NEXT_PROTOCOL_ETHERNET and protocol != 0:
                return self._no(reasons.NOT_IP)
        return self._ethernet(data, inner, limit, vni, depth + 1, ts_ns)

    def _geneve(self, data: bytes, offset: i64, limit: i64, depth: i64, ts_ns: i64) -> Segment | None:
        if limit - offset < geneve.HEADER_BYTES:
            return self._no(reasons.TUNNEL_SHORT)
        inner = geneve.payload_offset(data, offset, limit)
        if inner < 0 or depth >= MAX_TUNNELS:
            return self._no(reasons.TUNNEL_INVALID)
        # The VNI that users know is the mirror session's, in the VXLAN header inside; a GENEVE tunnel that carries
        # the mirrored frame itself is judged by its own.
        vni = data[offset + 4] << 16 | data[offset + 5] << 8 | data[offset + 6]
        protocol = data[offset + 2] << 8 | data[offset + 3]
        if protocol == geneve.PROTOCOL_ETHERNET:
            return self._ethernet(data, inner, limit, vni, depth + 1, ts_ns)
        if protocol == ETHERTYPE_IPV4 or protocol == ETHERTYPE_IPV6:
            return self._ip(data, inner, limit, vni, depth + 1, ts_ns)
        return self._no(reasons.NOT_IP)

    def _ethernet(self, data: bytes, offset: i64, limit: i64, vni: i64, depth: i64, ts_ns: i64) -> Segment | None:
        return self._ethertype(data, offset + 12, limit, vni, depth, ts_ns)

    def _ethertype(self, data: bytes, offset: i64, limit: i64, vni: i64, depth: i64, ts_ns: i64) -> Segment | None:
        """The EtherType at `offset`, behind any tags (IEEE 802.1Q section 9), and what follows it."""
        for _ in range(MAX_TAGS + 1):
            if offset + 2 > limit:
                return self._no(reasons.FRAME_SHORT)
            ethertype = data[offset] << 8 | data[offset + 1]
            if ethertype == ETHERTYPE_IPV4 or ethertype == ETHERTYPE_IPV6:
                return self._ip(data, offset + 2, limit, vni, depth, ts_ns)
            if ethertype not in ETHERTYPES_TAG:
                break
            offset += 4
        return self._no(reasons.NOT_IP)

    def _ip(self, data: bytes, offset: i64, limit: i64, vni: i64, depth: i64, ts_ns: i64) -> Segment | None:
        if offset >= limit:
            return self._no(reasons.FRAME_SHORT)
        version = data[offset] >> 4
        if version == 4:
            packet = ip.parse_ipv4(data, offset, limit)
        elif version == 6:
            packet = ip.parse_ipv6(data, offset, limit)
        else:
            return self._no(reasons.IP_INVALID)
        if packet.status != ip.OK:
            return self._no(reasons.FRAME_SHORT if packet.status == ip.SHORT else reasons.IP_INVALID)
        start, end, missing = packet.start, packet.end, packet.missing_bytes
        if packet.is_fragment:
            if packet.protocol != ip.PROTO_TCP and packet.protocol != ip.PROTO_UDP:
                return self._no(reasons.NOT_TCP)
            if missing:
                return self._no(reasons.FRAME_SHORT)  # a cut fragment can never be joined
            whole = self.fragments.add(
                (vni, packet.addresses, packet.protocol, packet.fragment_id),
                packet.fragment_offset,
                packet.more_fragments,
                data[start:end],
                ts_ns,
            )
            if whole is None:
                return self._no(reasons.FRAGMENT)
            data, start, end = whole, 0, len(whole)
        if packet.protocol == ip.PROTO_TCP:
            if not self.vnis.passes(vni):  # plain frames, and GENEVE without VXLAN inside, are judged only here
                return self._no(reasons.VNI_FILTERED)
            if end - start < 20:
                return self._no(reasons.FRAME_SHORT)
            return self._tcp(data, start, end, missing, packet.addresses + data[start : start + 4], vni, ts_ns)
        if packet.protocol == ip.PROTO_UDP and (self._unwrap or depth > 0):
            return self._udp(data, start, end, vni, depth, ts_ns)
        return self._no(reasons.NOT_TCP)

    def _udp(self, data: bytes, start: i64, end: i64, vni: i64, depth: i64, ts_ns: i64) -> Segment | None:
        """UDP is looked into for a tunnel: by the well-known port, else by what the payload looks like."""
        payload = start + 8
        if end < payload:
            return self._no(reasons.FRAME_SHORT)
        port = data[start + 2] << 8 | data[start + 3]
        tunnel = tunnel_inside(data, payload, end, port)
        if tunnel == TUNNEL_VXLAN:
            return self._vxlan(data, payload, end, vni, depth, ts_ns)
        if tunnel == TUNNEL_GENEVE:
            return self._geneve(data, payload, end, depth, ts_ns)
        return self._no(reasons.NOT_TCP)

    def _tcp(self, data: bytes, start: i64, end: i64, missing: i64, key: bytes, vni: i64, ts_ns: i64) -> Segment | None:
        """The TCP header at `start` (RFC 9293 section 3.1); `end` is where the IP packet ends, or was cut."""
        if self.ports:
            ports = self.ports
            if (data[start] << 8 | data[start + 1]) not in ports and (
                data[start + 2] << 8 | data[start + 3]
            ) not in ports:
                return self._no(reasons.PORT_FILTERED)
        payload = start + (data[start + 12] >> 4) * 4
        if payload < start + 20:
            return self._no(reasons.TCP_INVALID)
        if payload > end:
            return self._no(reasons.TCP_INVALID if missing == 0 else reasons.FRAME_SHORT)
        self.segments += 1
        if missing:
            self.cut_bytes += missing
        return Segment(
            vni,
            key,
            _u32(data, start + 4),
            _u32(data, start + 8),
            data[start + 13],
            data[payload:end],
            missing,
            ts_ns,
        )


def _u32(data: bytes, offset: i64) -> i64:
    """Native arithmetic where it is compiled, which an expression of `data[...]` alone is not."""
    a: i64 = data[offset]
    b: i64 = data[offset + 1]
    c: i64 = data[offset + 2]
    d: i64 = data[offset + 3]
    return a << 24 | b << 16 | c << 8 | d


def _u24(data: bytes, offset: i64) -> i64:
    a: i64 = data[offset]
    b: i64 = data[offset + 1]
    c: i64 = data[offset + 2]
    return a << 16 | b << 8 | c


def tunnel_inside(data: bytes, offset: int, limit: int, port: int) -> int:
    """Which tunnel a UDP payload carries: what its port says, else what it looks like down to the inner IP header.

    Mirrors may be sent to any port, and a capture file does not tell which; a payload is taken for a tunnel only
    when the flags, the reserved bits, the inner EtherType and the inner IP version all fit.
    """
    if port == PORT_VXLAN:
        return TUNNEL_VXLAN
    if port == PORT_GENEVE:
        return TUNNEL_GENEVE
    if limit - offset < 8 + ETHERNET_HEADER_BYTES + ip.IPV4_MIN_BYTES:
        return TUNNEL_NONE
    if data[offset] == 0x08 and data[offset + 1 : offset + 4] == b"\0\0\0" and data[offset + 7] == 0:
        if _ip_behind(data, offset + 8 + 12, limit):
            return TUNNEL_VXLAN
    elif data[offset] >> 6 == 0 and data[offset + 1] & 0x3F == 0 and data[offset + 7] == 0:
        inner = geneve.payload_offset(data, offset, limit)
        protocol = data[offset + 2] << 8 | data[offset + 3]
        if 0 <= inner < limit:
            if protocol == geneve.PROTOCOL_ETHERNET and _ip_behind(data, inner + 12, limit):
                return TUNNEL_GENEVE
            if protocol == ETHERTYPE_IPV4 and data[inner] >> 4 == 4:
                return TUNNEL_GENEVE
            if protocol == ETHERTYPE_IPV6 and data[inner] >> 4 == 6:
                return TUNNEL_GENEVE
    return TUNNEL_NONE


def _ip_behind(data: bytes, offset: int, limit: int) -> bool:
    """Whether an EtherType at `offset` (tags skipped) announces IP, and IP follows."""
    while offset + 3 <= limit:
        ethertype = data[offset] << 8 | data[offset + 1]
        if ethertype == ETHERTYPE_IPV4:
            return data[offset + 2] >> 4 == 4
        if ethertype == ETHERTYPE_IPV6:
            return data[offset + 2] >> 4 == 6
        if ethertype not in ETHERTYPES_TAG:
            return False
        offset += 4
    return False
