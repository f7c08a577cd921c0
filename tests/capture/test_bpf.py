"""What the kernel is asked to leave out, as libpcap understands it, and as it is then done."""

import pcapy
import pytest

from tests.builders import ethernet, ipv4, ipv6, tcp, udp
from vxsniff.capture.bpf import capture_filter

SERVER, OTHER = "10.0.0.2", "10.0.0.9"


def passes(expression, frame, link_type=pcapy.DLT_EN10MB):
    return bool(pcapy.compile(link_type, 262_144, expression, 1, 0).filter(frame))


def packet(sport=40000, dport=80, src="10.0.0.1", dst=SERVER, tags=()):
    return ethernet(ipv4(tcp(sport=sport, dport=dport), src=src, dst=dst), tags=tags)


@pytest.mark.parametrize("tags", [(), [(0x8100, 5)], [(0x88A8, 7), (0x8100, 5)]])
def test_both_directions_of_the_ports_pass_behind_tags_too(tags):
    expression = capture_filter([80, 8000, 8001, 8002], has_tags=True)
    assert passes(expression, packet(40000, 80, tags=tags))
    assert passes(expression, packet(80, 40000, tags=tags))
    assert passes(expression, packet(8001, 40000, tags=tags))
    assert not passes(expression, packet(40000, 81, tags=tags))
    assert not passes(expression, packet(8003, 7999, tags=tags))


def test_without_ports_all_of_tcp_passes_and_nothing_else():
    expression = capture_filter([], tunnel_ports=(4789,))
    assert passes(expression, packet(1, 2))
    assert passes(expression, ethernet(ipv6(tcp()), kind=0x86DD))
    assert passes(expression, ethernet(ipv4(udp(b"x" * 40), proto=17)))
    assert not passes(expression, ethernet(ipv4(udp(b"x", dport=53), proto=17)))
    assert not passes(expression, ethernet(b"\0" * 40, kind=0x0806))


def test_with_addresses_only_servers_at_them_pass():
    expression = capture_filter([80], [SERVER, "fd00::2"])
    assert passes(expression, packet(40000, 80, dst=SERVER))
    assert passes(expression, packet(80, 40000, src=SERVER, dst=OTHER))
    assert not passes(expression, packet(40000, 80, src=SERVER, dst=OTHER)), "a client here is no application of ours"
    assert not passes(expression, packet(40000, 80, dst=OTHER))
    assert passes(expression, ethernet(ipv6(tcp(dport=80), dst="fd00::2"), kind=0x86DD))
    everything = capture_filter([], [SERVER])
    assert passes(everything, packet(1, 2, dst=SERVER))
    assert passes(everything, packet(1, 2, src=SERVER, dst=OTHER))
    assert not passes(everything, packet(1, 2, dst=OTHER))


def test_fragments_pass_because_their_ports_are_not_known():
    expression = capture_filter([80])
    later = ipv4(b"x" * 40, fragment=100)
    assert passes(expression, ethernet(later))
    assert not passes(expression, ethernet(ipv4(b"x" * 40, fragment=100, proto=1)))


@pytest.mark.parametrize("link_type", [0, 1, 12, 113, 108])
@pytest.mark.parametrize("ports", [[], [80], range(1, 65536), [1, 3, 5, 7]])
@pytest.mark.parametrize("addresses", [(), ("10.0.0.1", "fd00::1")])
def test_libpcap_takes_every_filter_on_every_link_type(link_type, ports, addresses):
    pcapy.compile(link_type, 262_144, capture_filter(ports, addresses, (4789, 6081), link_type == 1), 1, 0)


def test_neighbouring_ports_become_ranges():
    assert "portrange 8000-8010" in capture_filter(range(8000, 8011))
    assert capture_filter([1, 2, 4]).count("portrange") == 2  # one for each direction
