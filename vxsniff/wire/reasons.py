"""Why a frame gave no TCP segment: one number each, so that a frame costs one list increment.

Every frame ends as a segment or under exactly one of these: the first equation of the ledger.
"""

from __future__ import annotations

from typing import Final

TUNNEL_SHORT: Final = 0
TUNNEL_INVALID: Final = 1
VNI_FILTERED: Final = 2
NOT_IP: Final = 3
NOT_TCP: Final = 4
PORT_FILTERED: Final = 5
FRAME_SHORT: Final = 6
IP_INVALID: Final = 7
TCP_INVALID: Final = 8
FRAGMENT: Final = 9
LINK_UNKNOWN: Final = 10

NAMES: Final = (
    "tunnel_short",
    "tunnel_invalid",
    "vni_filtered",
    "not_ip",
    "not_tcp",
    "port_filtered",
    "frame_short",
    "ip_invalid",
    "tcp_invalid",
    "fragment",
    "link_unknown",
)
"""Index = reason."""

MEANINGS: Final = (
    "datagram shorter than its tunnel header",
    "no VXLAN or GENEVE header (I flag missing, wrong version, nested too deep)",
    "VNI not in the list",
    "not IPv4 or IPv6 (ARP, LLDP, ...)",
    "not TCP (UDP, ICMP, ...)",
    "neither port is an application port",
    "frame ends inside its Ethernet, IP or TCP header",
    "IP header contradicts itself",
    "TCP header contradicts itself",
    "part of a fragmented packet: held until the rest comes",
    "capture file's link type is not known",
)
