"""Keys of segments."""

import pytest

from tests.builders import ethernet, ipv4, ipv6, tcp
from vxsniff.demo.frames import in_vxlan
from vxsniff.wire.decode import Decoder
from vxsniff.wire.segment import reverse_key, source_of
from vxsniff.wire.vxlan import VniFilter


@pytest.mark.parametrize("family", [4, 6])
def test_the_reverse_key_is_the_key_of_the_answer(family):
    build, kind = (ipv4, 0x0800) if family == 4 else (ipv6, 0x86DD)
    a, b = ("10.1.2.3", "10.4.5.6") if family == 4 else ("fd00::a", "fd00::b")
    there = Decoder(VniFilter()).vxlan_datagram(in_vxlan(ethernet(build(tcp(sport=1, dport=2), a, b), kind), 1), 0)
    back = Decoder(VniFilter()).vxlan_datagram(in_vxlan(ethernet(build(tcp(sport=2, dport=1), b, a), kind), 1), 0)
    assert reverse_key(there.key) == back.key
    assert source_of(there.key) == (a, 1)
    assert source_of(back.key) == (b, 2)
