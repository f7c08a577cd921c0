"""The receiver's sockets, on loopback."""

import os
import socket

import pytest

from tests.builders import ethernet, in_vxlan, ipv4, tcp
from vxsniff.capture import cbpf, drops
from vxsniff.capture.source import CaptureError
from vxsniff.capture.udp import BATCH_DATAGRAMS, Clock, Port, UdpSource
from vxsniff.wire.vxlan import VniFilter


def free_port():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::", 0))
        return probe.getsockname()[1]


class Kept:
    """A receiver that keeps VXLAN datagrams and their times in a list."""

    def __init__(self, got) -> None:
        self.vxlan_datagram = lambda data, ts_ns: got.append((data, ts_ns))


@pytest.fixture
def source():
    got = []
    made = UdpSource("::", [Port(free_port())], Kept(got))
    made.got = got
    yield made
    made.close()


def send(source, data, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sender.sendto(data, (host, source.addresses[0][1]))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_families_arrive_at_one_socket_and_the_longest_datagram_is_whole(source, host):
    longest = os.urandom(65_507)
    send(source, longest, host)
    assert source.wait(2000)
    assert source.receive() == 1
    assert source.got[0][0] == longest
    assert abs(source.got[0][1] - source.now_ns()) < 60 * 10**9


def test_one_step_takes_a_bounded_number(source):
    for _ in range(BATCH_DATAGRAMS + 10):
        send(source, b"x", "127.0.0.1")
    assert source.receive() == BATCH_DATAGRAMS
    assert source.receive() == 10
    assert source.receive() == 0
    assert not source.wait(0)


def test_datagrams_that_the_kernel_drops_are_counted(source):
    inner = source._sockets[0]
    inner.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(100):
        send(source, b"x" * 1000, "127.0.0.1")
    received = source.receive()
    assert received < 100
    assert source.kernel_dropped == 100 - received


def test_a_port_in_use_says_who_may_have_it(source):
    with pytest.raises(CaptureError, match=r"is in use: another receiver, or a kernel vxlan device.*--port"):
        UdpSource("::", [Port(source.addresses[0][1])], Kept([]))


def test_an_address_that_is_not_ours_says_so():
    with pytest.raises(CaptureError, match="no address of this machine"):
        UdpSource("203.0.113.77", [Port(free_port())], Kept([]))


def test_the_clock_never_steps_back():
    clock = Clock()
    times = [clock.now_ns() for _ in range(1000)]
    assert times == sorted(times)


def bare_ack(vni=5):
    return in_vxlan(ethernet(ipv4(tcp(flags=0x10))), vni)


def data(vni=5, sport=80):
    return in_vxlan(ethernet(ipv4(tcp(payload=b"x", sport=sport, dport=40000))), vni)


def taken(source):
    while source.wait(200):
        source.receive()
    got, source.got[:] = [item[0] for item in source.got], []
    return got


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_leaves_out_what_is_not_wanted_and_that_is_no_loss(host):
    got = []
    source = UdpSource("::", [Port(free_port())], Kept(got), (VniFilter([5]), frozenset([80])))
    source.got = got
    try:
        sent = [data(), bare_ack(), data(vni=6), data(sport=443), data()]
        for datagram in sent:
            send(source, datagram, host)
        assert taken(source) == [sent[0], sent[4]]
        assert source.counts == {"kernel_filtered": 3}
        assert source.kernel_dropped == 0
        # Live: another VNI, all ports; then everything, for somebody who watches.
        source.want(VniFilter([6]), frozenset())
        for datagram in sent:
            send(source, datagram, host)
        assert taken(source) == [sent[2]]
        source.want_all()
        source.want_all()
        for datagram in sent:
            send(source, datagram, host)
        assert taken(source) == sent
        assert source.counts == {"kernel_filtered": 7}
    finally:
        source.close()
    assert source.counts == {"kernel_filtered": 7}  # also when it is closed


def test_loss_and_what_is_left_out_are_told_apart():
    got = []
    source = UdpSource("127.0.0.1", [Port(free_port())], Kept(got), (VniFilter([5]), frozenset()))
    source.got = got
    try:
        source._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(50):
            send(source, data() + bytes(900), "127.0.0.1")
            send(source, bare_ack(), "127.0.0.1")
        received = len(taken(source))
        assert 0 < received < 50
        assert source.counts == {"kernel_filtered": 50}
        assert source.kernel_dropped == 50 - received
    finally:
        source.close()


def test_where_loss_can_not_be_told_from_what_is_left_out_nothing_is_left_out(monkeypatch):
    monkeypatch.setattr(drops, "receive_buffer_errors", lambda: None)
    got = []
    source = UdpSource("127.0.0.1", [Port(free_port())], Kept(got), (VniFilter([5]), frozenset()))
    source.got = got
    try:
        source.want(VniFilter([5]), frozenset())
        source.want_all()
        send(source, bare_ack(), "127.0.0.1")
        assert taken(source) == [bare_ack()]
        assert source.counts == {}
    finally:
        source.close()


def test_a_counter_of_32_bits_that_comes_round_goes_on(monkeypatch):
    now = [2**32 - 5]
    monkeypatch.setattr(drops, "_drops", lambda bound: now[0])
    source = UdpSource("127.0.0.1", [Port(free_port())], Kept([]))
    try:
        now[0] = 3
        assert source.kernel_dropped == 8
        now[0] = 10
        assert source.kernel_dropped == 15
    finally:
        source.close()


def test_a_program_that_the_kernel_does_not_take_leaves_the_judging_to_python(monkeypatch):
    def refuse(to, program):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(cbpf, "attach_filter", refuse)
    got = []
    source = UdpSource("127.0.0.1", [Port(free_port())], Kept(got), (VniFilter([5]), frozenset()))
    source.got = got
    try:
        source.want(VniFilter([5]), frozenset())
        send(source, bare_ack(), "127.0.0.1")
        assert taken(source) == [bare_ack()]
        assert "kernel_filtered" not in source.counts  # nothing is left out: what the socket drops is lost
    finally:
        source.close()
