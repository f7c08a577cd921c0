"""What the kernel does for a VXLAN socket before Python sees a datagram: it leaves out what nobody wants.

Dropped are datagrams of unwanted VNIs, TCP of unwanted ports, and segments that carry neither payload nor SYN, FIN or
RST: with pauses between calls such acknowledgements are half of all packets. What the program can't judge (IPv6, tags,
fragments, odd headers, what is too short) passes, and is judged in `wire`.

    UDP (8) | VXLAN (8) | Ethernet (14) | IPv4 (20..) | TCP (20..) | payload
    0         8           16              30
"""

from __future__ import annotations

from typing import Final

from vxsniff.capture import cbpf
from vxsniff.wire.vxlan import VniFilter

_FLAGS: Final = 8
_VNI: Final = 12
_ETHERTYPE: Final = 28
_IP: Final = 30
_LEAST_BYTES: Final = _IP + 20 + 20
_WHOLE: Final = 0xFFFF_FFFF
_LISTED_MOST: Final = 1000
"""Longer lists are looked at in Python: a set is faster than a walk."""


NOTHING: Final = cbpf.INSTRUCTION.pack(cbpf.RETURN, 0, 0, 0)
"""The program that lets nothing through."""


def vxlan_filter(vnis: VniFilter, ports: frozenset[int]) -> bytes:
    """The program for these VNIs and application ports (none: all)."""
    made = cbpf.Assembler()
    # What is too short for TCP passes.
    made.do(cbpf.LD_LENGTH)
    made.jump(cbpf.JGE, _LEAST_BYTES, false="pass-early")
    # The I flag and no P flag: Ethernet follows.
    made.do(cbpf.LD_BYTE, _FLAGS)
    made.do(cbpf.AND, 0x0C)
    made.jump(cbpf.JEQ, 0x08, true="vni")
    made.label("pass-early")
    made.do(cbpf.RETURN, _WHOLE)
    made.label("vni")
    _judge_vni(made, vnis)
    # IPv4, TCP, no fragment: else it passes.
    made.do(cbpf.LD_HALF, _ETHERTYPE)
    made.jump(cbpf.JEQ, 0x0800, false="pass")
    made.do(cbpf.LD_BYTE, _IP + 9)
    made.jump(cbpf.JEQ, 6, false="pass")
    made.do(cbpf.LD_HALF, _IP + 6)
    made.jump(cbpf.JSET, 0x3FFF, true="pass")
    # X is the IP header's length; the whole TCP header has to be there.
    made.do(cbpf.LD_BYTE, _IP)
    made.jump(cbpf.JGE, 0x45, false="pass")
    made.jump(cbpf.JGT, 0x4F, true="pass")
    made.do(cbpf.LDX_HEADER_BYTES, _IP)
    made.do(cbpf.LD_LENGTH)
    made.do(cbpf.SUB_X)
    made.jump(cbpf.JGE, _IP + 20, false="pass")
    made.go("port")
    made.label("pass")
    made.do(cbpf.RETURN, _WHOLE)
    made.label("port")
    _judge_ports(made, ports)
    # A segment with FIN, SYN or RST passes; else one whose IP packet ends with the TCP header is dropped.
    made.do(cbpf.LD_BYTE_X, _IP + 13)
    made.jump(cbpf.JSET, 0x07, true="keep")
    made.do(cbpf.LD_BYTE_X, _IP + 12)
    made.do(cbpf.AND, 0xF0)
    made.do(cbpf.RSH, 2)
    made.do(cbpf.ADD_X)
    made.do(cbpf.LDX_A)
    made.do(cbpf.LD_HALF, _IP + 2)
    made.do(cbpf.SUB_X)
    made.jump(cbpf.JEQ, 0, true="drop")
    made.label("keep")
    made.do(cbpf.RETURN, _WHOLE)
    made.label("drop")
    made.do(cbpf.RETURN, 0)
    return made.program()


def _judge_vni(made: cbpf.Assembler, vnis: VniFilter) -> None:
    """Goes on when it is wanted."""
    if len(vnis.wanted) + len(vnis.unwanted) > _LISTED_MOST or not (vnis.wanted or vnis.unwanted):
        return
    made.do(cbpf.LD_WORD, _VNI)
    made.do(cbpf.RSH, 8)
    for number, vni in enumerate(sorted(vnis.unwanted)):
        made.jump(cbpf.JEQ, vni, false=f"unwanted-{number}")
        made.do(cbpf.RETURN, 0)
        made.label(f"unwanted-{number}")
    if vnis.wanted:
        for number, vni in enumerate(sorted(vnis.wanted)):
            made.jump(cbpf.JEQ, vni, false=f"wanted-{number}")
            made.go("wanted")
            made.label(f"wanted-{number}")
        made.do(cbpf.RETURN, 0)
    made.label("wanted")


def _judge_ports(made: cbpf.Assembler, ports: frozenset[int]) -> None:
    """Goes on when one of the two is wanted. X is the IP header's length."""
    ranges = _ranges(ports)
    if not ranges or len(ranges) > _LISTED_MOST // 4:
        return
    for place, offset in (("source", _IP), ("destination", _IP + 2)):
        made.do(cbpf.LD_HALF_X, offset)
        for number, (first, last) in enumerate(ranges):
            other = f"{place}-{number}"
            made.jump(cbpf.JGE, first, false=other)
            made.jump(cbpf.JGT, last, true=other)
            made.go("wanted-port")
            made.label(other)
    made.do(cbpf.RETURN, 0)
    made.label("wanted-port")


def _ranges(ports: frozenset[int]) -> list[tuple[int, int]]:
    """Ports as ranges, as few as possible."""
    found: list[tuple[int, int]] = []
    for port in sorted(ports):
        if found and port == found[-1][1] + 1:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return found
