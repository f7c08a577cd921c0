"""The receiver's sockets, on loopback."""

import os
import socket

import pytest

from vxsniff.capture.source import CaptureError
from vxsniff.capture.udp import BATCH_DATAGRAMS, Clock, Port, UdpSource


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
    inner = next(iter(source._sockets.values()))[0]
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
