"""What it costs to take datagrams from a socket in Python, by the way to do it. recvmmsg is what vxsniff does: less for
what it saves here than for the interpreter's lock, which the others give up for each datagram.

The socket is filled first, then emptied, so that nothing but the taking is timed. Each way ends with one `bytes` for
each datagram, as the decoder wants it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from vxsniff.capture.reader import reader_of

SIZES = (120, 1450)
DATAGRAMS = 20_000
REPEATS = 5
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


def many_at_once(receiver: socket.socket) -> int:
    source = reader_of(receiver)
    count = 0
    while batch := source.read():
        count += len(batch)
    return count


WAYS: dict[str, Callable[[socket.socket], int]] = {
    "recv": recv,
    "recv_into and a copy": recv_into,
    "recvfrom": recvfrom,
    "recvmmsg, 64 at once": many_at_once,
}


def show(found: dict[str, Any]) -> None:
    print("\ntaking what lies in a socket, microseconds a datagram")
    print(f"{'way':<32}" + "".join(f"{size:>8} B" for size in found))
    for name in WAYS:
        print(f"{name:<32}" + "".join(f"{best[name]:10.2f}" for best in found.values()))
