"""Which of several sockets on one port takes a mirrored datagram: all of a connection's go to the same.

The sockets are a SO_REUSEPORT group. The kernel's own choice goes by the outer addresses and ports, and a mirror has
another outer source port for each direction. So it is chosen by a hash of the inner addresses and ports that is the
same in both directions. IP fragments, and what is no TCP, go by the addresses alone: of a fragment only the first has
ports. What can't be judged goes to the first socket.

    VXLAN (8) | Ethernet (14) | tags (4 each) | IP | TCP
    0           8               22 without tags
"""

from __future__ import annotations

from typing import Final

from vxsniff.capture import cbpf
from vxsniff.wire import vxlan

MAX_TAGS: Final = 2

_FLAGS: Final = 0
_NEXT_PROTOCOL: Final = 3
_ETHERTYPE: Final = 20
_HASH: Final = 0x9E37_79B1  # 2**32 divided by the golden ratio: spreads what differs in few bits over all of them
_ADDRESSES: Final = 0  # scratch words
_PORT: Final = 1


def by_connection(sockets: int) -> bytes:
    """The program for VXLAN and so many sockets."""
    made = cbpf.Assembler()
    # With the P flag IP may follow at once; else Ethernet does. A load beyond the end ends the program with 0.
    made.do(cbpf.LD_BYTE, _FLAGS)
    made.jump(cbpf.JSET, vxlan.FLAG_NEXT_PROTOCOL, false="ethernet")
    for protocol, hash_ip in ((vxlan.NEXT_PROTOCOL_IPV4, _hash_ipv4), (vxlan.NEXT_PROTOCOL_IPV6, _hash_ipv6)):
        made.do(cbpf.LD_BYTE, _NEXT_PROTOCOL)
        made.jump(cbpf.JEQ, protocol, false=f"not-{protocol}")
        hash_ip(made, vxlan.HEADER_BYTES, sockets)
        made.label(f"not-{protocol}")
    made.label("ethernet")
    for tags in range(MAX_TAGS + 1):
        _judge_ethertype(made, tags, sockets)
    made.do(cbpf.RETURN, 0)
    return made.program()


def to_first() -> bytes:
    """The program that has the first socket take all of it."""
    made = cbpf.Assembler()
    made.do(cbpf.RETURN, 0)
    return made.program()


def _judge_ethertype(made: cbpf.Assembler, tags: int, sockets: int) -> None:
    """Ends what is IP behind so many tags; goes on when there is another tag."""
    place = _ETHERTYPE + 4 * tags
    made.do(cbpf.LD_HALF, place)
    made.jump(cbpf.JEQ, 0x0800, false=f"not-ipv4-{tags}")
    _hash_ipv4(made, place + 2, sockets)
    made.label(f"not-ipv4-{tags}")
    made.do(cbpf.LD_HALF, place)
    made.jump(cbpf.JEQ, 0x86DD, false=f"not-ipv6-{tags}")
    _hash_ipv6(made, place + 2, sockets)
    made.label(f"not-ipv6-{tags}")
    made.do(cbpf.LD_HALF, place)
    made.jump(cbpf.JEQ, 0x8100, true=f"tag-{tags}")
    made.jump(cbpf.JEQ, 0x88A8, true=f"tag-{tags}")
    made.jump(cbpf.JEQ, 0x9100, true=f"tag-{tags}")
    made.do(cbpf.RETURN, 0)
    made.label(f"tag-{tags}")


def _hash_ipv4(made: cbpf.Assembler, ip: int, sockets: int) -> None:
    _xor(made, ip + 12, ip + 16, 1)
    done = f"addresses-{ip}-4"
    made.do(cbpf.LD_HALF, ip + 6)
    made.jump(cbpf.JSET, 0x3FFF, true=done)
    made.do(cbpf.LD_BYTE, ip + 9)
    made.jump(cbpf.JEQ, 6, false=done)
    made.do(cbpf.LDX_HEADER_BYTES, ip)
    made.do(cbpf.LD_LENGTH)
    made.do(cbpf.SUB_X)
    made.jump(cbpf.JGE, ip + 4, false=done)
    made.do(cbpf.LD_HALF_X, ip)
    made.do(cbpf.STORE, _PORT)
    made.do(cbpf.LD_HALF_X, ip + 2)
    _join_ports(made)
    made.label(done)
    _choose(made, sockets)


def _hash_ipv6(made: cbpf.Assembler, ip: int, sockets: int) -> None:
    done = f"addresses-{ip}-6"
    made.do(cbpf.LD_LENGTH)
    made.jump(cbpf.JGE, ip + 44, true=f"long-enough-{ip}")
    made.do(cbpf.RETURN, 0)
    made.label(f"long-enough-{ip}")
    _xor(made, ip + 8, ip + 24, 4)
    made.do(cbpf.LD_BYTE, ip + 6)
    made.jump(cbpf.JEQ, 6, false=done)
    made.do(cbpf.LD_HALF, ip + 40)
    made.do(cbpf.STORE, _PORT)
    made.do(cbpf.LD_HALF, ip + 42)
    _join_ports(made)
    made.label(done)
    _choose(made, sockets)


def _xor(made: cbpf.Assembler, source: int, destination: int, words: int) -> None:
    """The exclusive or of two addresses, of all their words, is kept."""
    offsets = [start + 4 * word for start in (source, destination) for word in range(words)]
    made.do(cbpf.LD_WORD, offsets[0])
    for offset in offsets[1:]:
        made.do(cbpf.LDX_A)
        made.do(cbpf.LD_WORD, offset)
        made.do(cbpf.XOR_X)
    made.do(cbpf.STORE, _ADDRESSES)


def _join_ports(made: cbpf.Assembler) -> None:
    """One port is in A, the other kept: both go into what was made of the addresses."""
    for kept in (_PORT, _ADDRESSES):
        made.do(cbpf.LDX_SCRATCH, kept)
        made.do(cbpf.XOR_X)
    made.do(cbpf.STORE, _ADDRESSES)


def _choose(made: cbpf.Assembler, sockets: int) -> None:
    made.do(cbpf.LD_SCRATCH, _ADDRESSES)
    made.do(cbpf.MULTIPLY, _HASH)
    made.do(cbpf.RSH, 16)
    made.do(cbpf.MODULO, sockets)
    made.do(cbpf.RETURN_A)
