"""Several sockets on one port: who gets what, and that nothing of it is lost. In the tests' BPF machine and in the kernel."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import ethernet, in_vxlan, ipv4, ipv6, tcp, udp
from tests.capture import bpf_machine
from tests.capture.test_kernel import datagrams
from tests.capture.test_udp import Kept, free_port
from vxsniff.capture import cbpf, steering
from vxsniff.capture.group import SocketGroup
from vxsniff.capture.source import CaptureError
from vxsniff.capture.udp import GENEVE, Port, UdpSource
from vxsniff.wire.decode import Decoder
from vxsniff.wire.segment import reverse_key
from vxsniff.wire.vxlan import VniFilter

ADDRESSES = {
    4: st.integers(0, 2**32 - 1).map(lambda n: socket.inet_ntop(socket.AF_INET, n.to_bytes(4, "big"))),
    6: st.integers(0, 2**128 - 1).map(lambda n: socket.inet_ntop(socket.AF_INET6, n.to_bytes(16, "big"))),
}
ENDS = st.integers(1, 65535)
TAGS = st.sampled_from([(), ((0x8100, 5),), ((0x88A8, 5), (0x8100, 7)), ((0x9100, 1), (0x8100, 7))])
OPTIONS = st.sampled_from([b"", b"\1" * 4, b"\1" * 40])


def packet(version, source, destination, sport, dport, tags=(), options=b"", payload=b"", flags=0x18, vni=5):
    segment = tcp(sport=sport, dport=dport, payload=payload, flags=flags)
    if version == 4:
        return in_vxlan(ethernet(ipv4(segment, source, destination, options=options), tags=tags), vni)
    return in_vxlan(ethernet(ipv6(segment, source, destination), 0x86DD, tags=tags), vni)


@given(st.data(), st.sampled_from([4, 6]), ENDS, ENDS, TAGS, st.integers(1, 64))
def test_both_directions_of_a_connection_go_to_the_same_socket(data, version, sport, dport, tags, sockets):
    source, destination = data.draw(ADDRESSES[version]), data.draw(ADDRESSES[version])
    program = steering.by_connection(sockets)
    there = packet(version, source, destination, sport, dport, tags, data.draw(OPTIONS), b"GET / HTTP/1.1\r\n")
    # Other options, no payload, other flags, and mirrored at the other end, without tags.
    back = packet(version, destination, source, dport, sport, (), data.draw(OPTIONS), b"", flags=0x10, vni=6)
    chosen = bpf_machine.run(program, there)
    assert 0 <= chosen < sockets
    assert bpf_machine.run(program, back) == chosen


@pytest.mark.parametrize(("version", "protocol"), [(4, b"\1"), (6, b"\2")])
def test_ip_without_ethernet_goes_by_its_connection_too(version, protocol):
    ends = {4: ("10.0.0.9", "10.0.0.2"), 6: ("fd00::9", "fd00::2")}[version]
    program = steering.by_connection(8)
    for port in range(2000, 2050):
        plain = packet(version, *ends, port, 80)
        assert bpf_machine.run(program, b"\x0c\0\0" + protocol + plain[4:8] + plain[22:]) == bpf_machine.run(
            program, plain
        )


@given(datagrams(), st.integers(1, 64))
def test_whatever_comes_goes_to_a_socket_that_there_is(data, sockets):
    assert 0 <= bpf_machine.run(steering.by_connection(sockets), data) < sockets


@given(datagrams(), st.integers(2, 8))
def test_what_the_decoder_takes_for_one_connection_goes_to_one_socket(data, sockets):
    """Of fragments only the first has ports: those go by their addresses, the rest of the connection need not."""
    segment = Decoder(VniFilter()).vxlan_datagram(data, 0)
    if segment is None or data[28:30] != b"\0\0":
        return
    family, half = (socket.AF_INET, 4) if len(segment.key) == 12 else (socket.AF_INET6, 16)
    assert reverse_key(reverse_key(segment.key)) == segment.key
    source, destination = (socket.inet_ntop(family, segment.key[i * half : (i + 1) * half]) for i in (0, 1))
    sport, dport = (int.from_bytes(segment.key[i:][:2], "big") for i in (2 * half, 2 * half + 2))
    plain = packet(4 if half == 4 else 6, source, destination, sport, dport)
    program = steering.by_connection(sockets)
    assert bpf_machine.run(program, data) == bpf_machine.run(program, plain)


@pytest.mark.parametrize("sockets", [2, 3, 8])
def test_connections_spread_over_all_sockets(sockets):
    program = steering.by_connection(sockets)
    counts = [0] * sockets
    for port in range(20_000, 24_000):
        counts[bpf_machine.run(program, packet(4, "10.0.0.9", "10.0.0.2", port, 80))] += 1
    assert max(counts) < 1.2 * 4000 / sockets
    counts = [0] * sockets
    for client in range(4000):  # many clients that share a port
        source = f"10.0.{client // 250}.{client % 250}"
        counts[bpf_machine.run(program, packet(4, source, "10.1.0.2", 40000, 443))] += 1
    assert max(counts) < 1.2 * 4000 / sockets


def test_fragments_of_a_packet_meet_in_one_socket():
    program = steering.by_connection(8)
    for number in range(50):
        whole = tcp(sport=1000 + number, payload=b"x" * 64)
        first = in_vxlan(ethernet(ipv4(whole[:40], fragment=0x2000)), 5)
        last = in_vxlan(ethernet(ipv4(whole[40:], fragment=0x0005)), 5)
        assert bpf_machine.run(program, first) == bpf_machine.run(program, last)


def test_runts_and_what_is_no_ip_go_to_the_first_socket():
    program = steering.by_connection(8)
    whole = packet(4, "10.0.0.9", "10.0.0.2", 40001, 80)
    assert bpf_machine.run(program, whole) != 0
    for odd in (b"", b"\x08", whole[:30], whole[:41], in_vxlan(ethernet(bytes(60), 0x0806), 5)):
        assert bpf_machine.run(program, odd) == 0


# ---- in the kernel


def opened(workers=3, ports=None, filters=False):
    return SocketGroup("::", ports or [Port(free_port())], workers, filters)


def received(group, worker):
    got = []
    for one in group.of(worker):
        try:
            while True:
                got.append(one.recv(65_535))
        except BlockingIOError:
            pass
    return got


def send(group, datagrams, port=0, host="127.0.0.1"):
    """Each from another outer port, as a mirror does."""
    where = (host, group._addresses[port][1])
    for data in datagrams:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.sendto(data, where)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_chooses_as_the_machine_of_the_tests(host):
    group = opened()
    try:
        sent = [packet(4, "10.0.0.9", "10.0.0.2", port, 80) for port in range(2000, 2100)]
        sent += [packet(6, "fd00::9", "fd00::2", 80, port, ((0x8100, 4),)) for port in range(2000, 2100)]
        sent += [b"\x08", in_vxlan(ethernet(ipv4(udp(b"x"), proto=17)), 5)]
        send(group, sent, host=host)
        program = steering.by_connection(3)
        for worker in range(3):
            assert received(group, worker) == [data for data in sent if bpf_machine.run(program, data) == worker]
    finally:
        group.close()


def test_geneve_goes_to_the_first_worker():
    group = opened(ports=[Port(free_port()), Port(free_port(), GENEVE)])
    try:
        send(group, [bytes([number]) * 60 for number in range(50)], port=1)
        assert [len(received(group, worker)) for worker in range(3)] == [50, 0, 0]
    finally:
        group.close()


def test_what_is_left_out_is_no_loss_and_what_is_shut_out_is_nobodys():
    group = opened(2, filters=True)
    try:
        ports = [Port(group._addresses[0][1])]
        sources = [UdpSource("::", ports, Kept([]), (VniFilter([5]), frozenset()), group.of(n)) for n in range(2)]
        wanted = [packet(4, "10.0.0.9", "10.0.0.2", port, 80, payload=b"x") for port in range(2000, 2020)]
        acks = [packet(4, "10.0.0.9", "10.0.0.2", port, 80, flags=0x10) for port in range(2000, 2020)]
        send(group, wanted + acks)
        group.shut_out()
        send(group, wanted)
        assert sorted(received(group, 0) + received(group, 1)) == sorted(wanted)
        assert group.drops.count() == (0, 20)
        group.let_in()
        send(group, wanted + acks)
        assert len(received(group, 0) + received(group, 1)) == 40
        for source in sources:
            source.want(VniFilter([5]), frozenset())
        sources[0].shut_out()
        send(group, wanted + acks)
        shares = [len(received(group, worker)) for worker in range(2)]
        assert shares[0] == 0 < shares[1] < 20
        group.let_all_in(0)
        send(group, wanted + acks)
        assert len(received(group, 0)) == 40 - 2 * shares[1], "the next worker may want other things"
    finally:
        group.close()


def test_a_worker_reads_an_inherited_socket_and_leaves_it_open():
    group = opened(2)
    try:
        got = []
        sent = [packet(4, "10.0.0.9", "10.0.0.2", port, 80, payload=b"x") for port in range(2000, 2020)]
        send(group, sent)
        ports = [Port(group._addresses[0][1])]
        for worker in range(2):
            source = UdpSource("::", ports, Kept(got), inherited=group.of(worker))
            source.receive()
            assert (source.kernel_dropped, source.counts) == (0, {})  # the group counts
            source.close()
        assert sorted(data for data, _ in got) == sorted(sent)
        send(group, sent)
        assert len(received(group, 0) + received(group, 1)) == 20
    finally:
        group.close()


def test_a_second_group_on_the_same_port_is_refused():
    group = opened(2)
    try:
        with pytest.raises(CaptureError, match="is in use"):
            SocketGroup("::", [Port(group._addresses[0][1])], 2, False)
    finally:
        group.close()


def test_a_kernel_that_can_not_steer_says_what_to_do(monkeypatch):
    def refuse(to, program):
        raise OSError(92, "Protocol not available")

    monkeypatch.setattr(cbpf, "attach_steering", refuse)
    with pytest.raises(CaptureError, match="Protocol not available; use --workers 1"):
        opened(2)
