"""The kernel's filter agrees with what Python would have done with a datagram; and the kernel agrees with the tests' BPF."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import ethernet, in_vxlan, ipv4, ipv6, tcp
from tests.capture import bpf_machine
from vxsniff.capture import cbpf
from vxsniff.capture.kernel import vxlan_filter
from vxsniff.wire import reasons
from vxsniff.wire.decode import Decoder
from vxsniff.wire.vxlan import VniFilter

FLAGS = st.sampled_from([0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x00, 0x38])
PORTS = st.sampled_from([80, 443, 8000, 8005, 8010, 40000])
OPTIONS = st.sampled_from([b"", b"\1" * 4, b"\1" * 12, b"\1" * 40])


@st.composite
def datagrams(draw):
    """Mirrored datagrams, most of them plain; some cut, bent or of other kinds."""
    segment = tcp(
        sport=draw(PORTS),
        dport=draw(PORTS),
        flags=draw(FLAGS),
        payload=draw(st.sampled_from([b"", b"", b"x", b"GET / HTTP/1.1\r\n"])),
        options=draw(OPTIONS),
    )
    kind = draw(st.sampled_from(["ipv4"] * 6 + ["ipv6", "tagged", "fragment", "udp", "arp", "total"]))
    if kind == "ipv6":
        frame = ethernet(ipv6(segment), 0x86DD)
    elif kind == "tagged":
        frame = ethernet(ipv4(segment), tags=[(0x8100, 5)])
    elif kind == "fragment":
        frame = ethernet(ipv4(segment, fragment=draw(st.sampled_from([0x2000, 0x0001, 0x2005]))))
    elif kind == "udp":
        frame = ethernet(ipv4(segment, proto=17))
    elif kind == "arp":
        frame = ethernet(segment, 0x0806)
    elif kind == "total":
        frame = ethernet(ipv4(segment, total=draw(st.integers(0, 100))))
    else:
        frame = ethernet(ipv4(segment, options=draw(OPTIONS))) + draw(st.sampled_from([b"", b"\0" * 6]))
    data = in_vxlan(frame, draw(st.sampled_from([0, 5, 7, 2**24 - 1])))
    data = draw(st.sampled_from([b"\x08", b"\x08", b"\x08", b"\x88", b"\x00", b"\x0c"])) + data[1:]
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    if draw(st.integers(0, 9)) == 0 and data:
        place = draw(st.integers(0, len(data) - 1))
        data = data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
    return data


FILTERS = st.builds(
    VniFilter, st.sets(st.sampled_from([0, 5, 7, 9]), max_size=3), st.sets(st.sampled_from([5, 7]), max_size=2)
)
PORT_SETS = st.sampled_from([(), (80,), (80, 443), range(8000, 8011), (80, *range(8000, 8006))]).map(frozenset)


def passes(program, data):
    return bpf_machine.run(program, struct.pack("!HHHH", 65408, 4789, 8 + len(data), 0) + data) != 0


def is_bare(segment):
    return not segment.payload and segment.flags & 0x07 == 0


@given(datagrams(), FILTERS, PORT_SETS)
def test_what_the_kernel_drops_python_would_have_left_out_or_made_nothing_of(data, vnis, ports):
    decoder = Decoder(vnis, ports)
    segment = decoder.vxlan_datagram(data, 0)
    if passes(vxlan_filter(vnis, ports), data):
        return
    if segment is None:
        assert decoder.reasons[reasons.VNI_FILTERED] or decoder.reasons[reasons.PORT_FILTERED]
    else:
        assert is_bare(segment)


@given(datagrams(), FILTERS, PORT_SETS)
def test_what_is_plain_and_not_wanted_the_kernel_drops(data, vnis, ports):
    decoder = Decoder(vnis, ports)
    segment = decoder.vxlan_datagram(data, 0)
    is_plain = len(data) >= 62 and data[0] & 0x0C == 8 and data[20:22] == b"\x08\x00" and data[22] == 0x45
    if (is_plain and decoder.reasons[reasons.VNI_FILTERED]) or (
        is_plain and (decoder.reasons[reasons.PORT_FILTERED] or (segment is not None and is_bare(segment)))
    ):
        assert not passes(vxlan_filter(vnis, ports), data)


def test_lists_that_are_too_long_are_left_to_python():
    ack = in_vxlan(ethernet(ipv4(tcp(flags=0x10))), 5)
    data = in_vxlan(ethernet(ipv4(tcp(payload=b"x"))), 5)
    for vnis, ports in (
        (VniFilter(range(10_000, 15_000)), frozenset()),
        (VniFilter(), frozenset(range(1001, 9001, 2))),
    ):
        program = vxlan_filter(vnis, ports)
        assert passes(program, data)
        assert not passes(program, ack)
    longest = vxlan_filter(VniFilter(range(900), range(2000, 2100)), frozenset(range(1, 500, 2)))
    assert len(longest) // cbpf.INSTRUCTION.size <= cbpf.MAX_INSTRUCTIONS


def test_a_jump_that_is_too_long_or_a_program_that_is_too_long_is_refused():
    made = cbpf.Assembler()
    made.jump(cbpf.JEQ, 1, true="far")
    for _ in range(300):
        made.do(cbpf.LD_LENGTH)
    made.label("far")
    made.do(cbpf.RETURN, 0)
    with pytest.raises(ValueError, match="too long"):
        made.program()
    for _ in range(5000):
        made.do(cbpf.LD_LENGTH)
    with pytest.raises(ValueError, match="too many"):
        made.program()


def test_the_kernel_says_the_same_as_the_machine_of_the_tests():
    """The same datagrams over a real socket with the filter attached."""
    vnis, ports = VniFilter([5, 7], [7]), frozenset([80, *range(8000, 8011)])
    program = vxlan_filter(vnis, ports)
    sent = [
        in_vxlan(ethernet(ipv4(tcp(sport=sport, dport=40000, flags=flags, payload=payload, options=options))), vni)
        for vni in (5, 7, 9)
        for sport in (80, 443, 8003)
        for flags in (0x02, 0x10, 0x11, 0x18)
        for payload in (b"", b"body")
        for options in (b"", b"\1" * 12)
    ] + [b"", b"\x08", in_vxlan(ethernet(ipv6(tcp(flags=0x10)), 0x86DD), 5)]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        cbpf.attach_filter(receiver, program)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.5)
        got = []
        for data in sent:
            sender.sendto(data, receiver.getsockname())
        try:
            while True:
                got.append(receiver.recv(65_535))
        except TimeoutError:
            pass
        assert got == [data for data in sent if passes(program, data)]
        assert 0 < len(got) < len(sent)
        cbpf.detach_filter(receiver)
        sender.sendto(in_vxlan(ethernet(ipv4(tcp(flags=0x10))), 9), receiver.getsockname())
        assert receiver.recv(65_535)
