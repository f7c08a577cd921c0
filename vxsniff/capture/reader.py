"""What lies in a UDP socket, many datagrams at once (recvmmsg(2)), on Linux; one by one elsewhere.

Besides the system calls that it saves: `socket.recv` gives the interpreter's lock up for each datagram. A thread that
delivers takes it then, and capturing has to wait until it comes back. Here the lock is kept; the call never waits.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from typing import Final

MAX_DATAGRAM_BYTES: Final = 65_535
_SLOT_BYTES: Final = MAX_DATAGRAM_BYTES + 1 + 21 * 64
"""Between the starts of two places for a datagram: no round number, or all starts would share a few cache lines."""


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iovecs", ctypes.c_void_p),
        ("iovec_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr: with the length of what came."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


class OneByOne:
    """Takes datagrams from a socket that does not block."""

    at_once: Final = 1
    """So many, when there are as many."""

    def __init__(self, bound: socket.socket) -> None:
        self._bound = bound

    def read(self) -> list[bytes]:
        """What is there, without waiting."""
        try:
            return [self._bound.recv(MAX_DATAGRAM_BYTES)]
        except BlockingIOError:
            return []
        except ConnectionError:
            return []  # an ICMP error that someone sent us; a receiver has nobody to be refused by


class ManyAtOnce:
    """The same with recvmmsg."""

    at_once: Final = 64

    def __init__(self, bound: socket.socket, libc: ctypes.PyDLL) -> None:
        self._fd = bound.fileno()
        self._recvmmsg = libc.recvmmsg
        room = bytearray(self.at_once * _SLOT_BYTES)
        start = ctypes.addressof((ctypes.c_char * len(room)).from_buffer(room))
        self._places = [memoryview(room)[at : at + MAX_DATAGRAM_BYTES] for at in range(0, len(room), _SLOT_BYTES)]
        self._iovecs = (_Iovec * self.at_once)()
        self._messages = (_Message * self.at_once)()
        for number, message in enumerate(self._messages):
            self._iovecs[number] = _Iovec(start + number * _SLOT_BYTES, MAX_DATAGRAM_BYTES)
            message.header.iovecs = ctypes.addressof(self._iovecs) + number * ctypes.sizeof(_Iovec)
            message.header.iovec_count = 1
        every = ctypes.sizeof(_Message) // 4
        self._lengths = memoryview(self._messages).cast("B").cast("I")[_Message.length.offset // 4 :: every]

    def read(self) -> list[bytes]:
        count = self._recvmmsg(self._fd, self._messages, self.at_once, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            error = OSError(number, os.strerror(number))
            if isinstance(error, (BlockingIOError, InterruptedError, ConnectionError)):
                return []  # nothing is there, or an ICMP error that someone sent us
            raise error
        return [place[:size].tobytes() for place, size in zip(self._places[:count], self._lengths, strict=False)]


def reader_of(bound: socket.socket) -> OneByOne | ManyAtOnce:
    """The best that this system has."""
    if sys.platform == "linux":
        libc = ctypes.PyDLL(None, use_errno=True)  # of ctypes' kinds the one that keeps the lock
        if hasattr(libc, "recvmmsg"):
            return ManyAtOnce(bound, libc)
    return OneByOne(bound)
