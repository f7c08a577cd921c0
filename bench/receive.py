"""What it costs to take datagrams from a socket in Python, by the way to do it: the levers that were not pulled.

The socket is filled first, then emptied, so that nothing but the taking is timed. Each way ends with one `bytes` for
each datagram, as the decoder wants it.
"""

from __future__ import annotations

import ctypes
import socket
import time
from collections.abc import Callable
from typing import Any

SIZES = (120, 1450)
DATAGRAMS = 20_000
REPEATS = 5
_BATCH = 64
_LONGEST = 65_535


def run() -> dict[str, Any]:
    """Microseconds a datagram, by size and way; the best of some turns, taken in turn."""
    found: dict[str, Any] = {}
    for size in SIZES:
        best: dict[str, float] = {}
        for _ in range(REPEATS):
            for name, take in WAYS.items():
                best[name] = min(best.get(name, 1e9), _seconds(take, size) / DATAGRAMS * 1e6)
        found[str(size)] = best
    return found


def _seconds(take: Callable[[socket.socket], int], size: int) -> float:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, 33, 128 << 20)  # SO_RCVBUFFORCE
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        sender.connect(receiver.getsockname())
        data = bytes(size)
        for _ in range(DATAGRAMS):
            sender.send(data)
        started_s = time.perf_counter()
        count = take(receiver)
        took_s = time.perf_counter() - started_s
    if count != DATAGRAMS:
        raise RuntimeError(f"{count} of {DATAGRAMS} datagrams came")
    return took_s


def recv(receiver: socket.socket) -> int:
    count = 0
    take = receiver.recv
    try:
        while True:
            take(_LONGEST)
            count += 1
    except BlockingIOError:
        return count


def recv_into(receiver: socket.socket) -> int:
    count = 0
    buffer = bytearray(_LONGEST)
    view = memoryview(buffer)
    take = receiver.recv_into
    try:
        while True:
            bytes(view[: take(buffer)])
            count += 1
    except BlockingIOError:
        return count


def recvfrom(receiver: socket.socket) -> int:
    count = 0
    take = receiver.recvfrom
    try:
        while True:
            take(_LONGEST)
            count += 1
    except BlockingIOError:
        return count


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr (recvmmsg(2))."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iovecs", ctypes.c_void_p),
        ("iovec_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    )


def recvmmsg(receiver: socket.socket) -> int:
    buffers = [ctypes.create_string_buffer(_LONGEST) for _ in range(_BATCH)]
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    iovecs = (_Iovec * _BATCH)(*((ctypes.addressof(buffer), _LONGEST) for buffer in buffers))
    messages = (_Message * _BATCH)()
    for number, message in enumerate(messages):
        message.iovecs = ctypes.addressof(iovecs) + number * ctypes.sizeof(_Iovec)
        message.iovec_count = 1
    lengths = memoryview(messages).cast("B").cast("I")[_Message.length.offset // 4 :: ctypes.sizeof(_Message) // 4]
    take = ctypes.CDLL(None).recvmmsg
    fd, count = receiver.fileno(), 0
    while (got := take(fd, messages, _BATCH, socket.MSG_DONTWAIT, None)) > 0:
        for view, length in zip(views[:got], lengths, strict=False):
            bytes(view[:length])
        count += got
    return count


WAYS: dict[str, Callable[[socket.socket], int]] = {
    "recv": recv,
    "recv_into and a copy": recv_into,
    "recvfrom": recvfrom,
    "recvmmsg (ctypes, 64 at once)": recvmmsg,
}


def show(found: dict[str, Any]) -> None:
    print("\ntaking what lies in a socket, microseconds a datagram")
    print(f"{'way':<32}" + "".join(f"{size:>8} B" for size in found))
    for name in WAYS:
        print(f"{name:<32}" + "".join(f"{best[name]:10.2f}" for best in found.values()))
