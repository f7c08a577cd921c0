"""Datagrams off a socket, many at once or one by one: the same come out."""

import os
import socket
import sys

import pytest

from vxsniff.capture import reader
from vxsniff.capture.reader import ManyAtOnce, OneByOne, reader_of

needs_recvmmsg = pytest.mark.skipif(sys.platform != "linux", reason="recvmmsg is Linux's")


@pytest.fixture
def ends():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        bound.bind(("127.0.0.1", 0))
        bound.setblocking(False)
        sender.connect(bound.getsockname())
        yield bound, sender


def all_of(source):
    taken = []
    while batch := source.read():
        assert len(batch) <= source.at_once
        taken += batch
    return taken


@pytest.mark.parametrize("make", [OneByOne, pytest.param(reader_of, marks=needs_recvmmsg)])
def test_every_datagram_comes_whole_and_in_order(ends, make):
    bound, sender = ends
    source = make(bound)
    assert source.read() == []
    sent = [os.urandom(size) for size in (0, 1, 62, 1500, 9001, 65_507, 3, 0, *range(100, 200))]
    for data in sent:
        sender.send(data)
    assert all_of(source) == sent
    assert source.read() == []


@needs_recvmmsg
def test_as_many_as_fit_are_taken_at_once(ends):
    bound, sender = ends
    source = reader_of(bound)
    assert isinstance(source, ManyAtOnce)
    for number in range(source.at_once + 3):
        sender.send(b"%d" % number)
    assert [len(source.read()) for _ in range(3)] == [source.at_once, 3, 0]


@pytest.mark.parametrize("make", [OneByOne, pytest.param(reader_of, marks=needs_recvmmsg)])
def test_an_error_that_somebody_sent_is_nothing_to_a_receiver(ends, make):
    bound, sender = ends
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        nobody = gone.getsockname()
    bound.connect(nobody)
    bound.send(b"x")  # answered by an ICMP error: nobody listens there
    source = make(bound)
    assert source.read() == []
    bound.connect(sender.getsockname())
    sender.send(b"after it")
    assert all_of(source) == [b"after it"]


def test_other_systems_take_them_one_by_one(ends, monkeypatch):
    monkeypatch.setattr(reader.sys, "platform", "darwin")
    assert isinstance(reader_of(ends[0]), OneByOne)


@pytest.mark.parametrize("make", [OneByOne, pytest.param(reader_of, marks=needs_recvmmsg)])
def test_any_other_error_is_raised(ends, make):
    bound, _ = ends
    source = make(bound)
    bound.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        source.read()
