"""VXLAN (RFC 7348 section 5): which datagrams are ours, and which VNIs are wanted.

     0                   1                   2                   3
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |R|R|R|R|I|P|R|R|            Reserved           | Next protocol |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                VXLAN Network Identifier (VNI) |   Reserved    |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

The I flag must be set; every other bit is ignored on receipt, as the RFC asks (strict checkers break real senders),
with one exception: the P flag of VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe section 3.1), behind which the payload may be
IP without Ethernet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

HEADER_BYTES: Final = 8
FLAG_VNI: Final = 0x08
FLAG_NEXT_PROTOCOL: Final = 0x04
NEXT_PROTOCOL_IPV4: Final = 1
NEXT_PROTOCOL_IPV6: Final = 2
NEXT_PROTOCOL_ETHERNET: Final = 3

VNI_MAX: Final = 2**24 - 1


class VniFilter:
    """Which VNIs pass: the wanted ones, or all but the unwanted ones, or all.

    A VNI in both lists is unwanted. Frames without a tunnel (NO_VNI) pass unless VNIs are asked for by name.
    """

    __slots__ = ("_takes_all", "unwanted", "wanted")

    def __init__(self, wanted: Iterable[int] = (), unwanted: Iterable[int] = ()) -> None:
        self.wanted: frozenset[int] = frozenset(wanted)
        self.unwanted: frozenset[int] = frozenset(unwanted)
        self._takes_all = not self.wanted and not self.unwanted

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VniFilter) and (self.wanted, self.unwanted) == (other.wanted, other.unwanted)

    def __hash__(self) -> int:
        return hash((self.wanted, self.unwanted))

    def passes(self, vni: int) -> bool:
        return self._takes_all or (vni not in self.unwanted and (not self.wanted or vni in self.wanted))

    def joined(self, other: VniFilter) -> VniFilter:
        """Both lists as one."""
        return VniFilter(self.wanted | other.wanted, self.unwanted | other.unwanted)

    def describe(self) -> str:
        """The filter in words, for the log."""
        kept = ", ".join(str(v) for v in sorted(self.wanted)) if self.wanted else "all"
        return kept + (" but " + ", ".join(str(v) for v in sorted(self.unwanted)) if self.unwanted else "")


def parse_vni_list(text: str) -> VniFilter:
    """Reads `123,456 -789`: comma or space separated, negative means excluded, empty means all.

    Raises ValueError, with the word that is wrong, for anything that is no number from 0 to 2**24 - 1.
    """
    wanted: list[int] = []
    unwanted: list[int] = []
    for word in text.replace(",", " ").split():
        digits = word[1:] if word[0] == "-" else word
        if not (digits.isascii() and digits.isdigit()) or int(digits) > VNI_MAX:
            raise ValueError(f"{word!r} is not a VNI: use numbers from 0 to {VNI_MAX}, negative to exclude")
        (unwanted if word[0] == "-" else wanted).append(int(digits))
    return VniFilter(wanted, unwanted)
