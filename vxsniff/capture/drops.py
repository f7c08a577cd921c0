"""What the kernel dropped of sockets' datagrams: for want of room, and because a filter left them out.

Both count in a socket's drops (sk_drops). What was lost for want of room is in RcvbufErrors of the network namespace,
too (proc(5), /proc/net/snmp), of all its sockets: so of the two the smaller is the loss.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Final, NamedTuple

# Linux constants that Python's socket module lacks (asm-generic/socket.h, linux/sock_diag.h).
_SO_MEMINFO: Final = 55
_MEMINFO_DROPS: Final = 8


class Dropped(NamedTuple):
    """Datagrams since the start: lost for want of room, and left out by a filter."""

    lost: int
    filtered: int


class DropCounter:
    """Counts for some sockets, from when they are given to it. All methods may be called from any thread.

    The counters of sockets have 32 bits: look often enough that none comes round unseen.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._seen: list[int] = []
        self._errors_seen = receive_buffer_errors()
        self._dropped = 0
        self._errors = 0
        self._is_paused = False
        self.is_filtered = False
        """Whether there is a filter: without one all drops are losses."""

    @property
    def can_tell(self) -> bool:
        """Whether losses can be told from what a filter leaves out."""
        return self._errors_seen is not None

    def watch(self, sockets: list[socket.socket]) -> None:
        """These from now on."""
        with self._lock:
            self._sockets = sockets
            self._begin()

    def _begin(self) -> None:
        self._seen = [_drops(one) for one in self._sockets]
        self._errors_seen = receive_buffer_errors()

    def pause(self) -> None:
        """What is dropped until `resume` is nobody's loss."""
        self.count()
        with self._lock:
            self._is_paused = True

    def resume(self) -> None:
        with self._lock:
            if self._is_paused:
                self._is_paused = False
                self._begin()

    def count(self) -> Dropped:
        with self._lock:
            if not self._is_paused:
                now = [_drops(one) for one in self._sockets]
                self._dropped += sum((n - seen) % 2**32 for n, seen in zip(now, self._seen, strict=True))
                self._seen = now
                if self._errors_seen is not None:
                    errors = receive_buffer_errors() or self._errors_seen
                    self._errors += max(0, errors - self._errors_seen)
                    self._errors_seen = errors
            lost = min(self._dropped, self._errors) if self.is_filtered else self._dropped
            return Dropped(lost, self._dropped - lost)

    def stop(self) -> None:
        """The sockets are about to be closed; what was counted stays."""
        self.count()
        with self._lock:
            self._sockets, self._seen = [], []


def receive_buffer_errors() -> int | None:
    """RcvbufErrors of UDP over IPv4 and IPv6 in this network namespace; None where the system doesn't tell."""
    try:
        rows = [
            line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines() if line.startswith("Udp:")
        ]
        found = int(rows[1][rows[0].index("RcvbufErrors")])
        with contextlib.suppress(FileNotFoundError):
            for line in Path("/proc/self/net/snmp6").read_text().splitlines():
                if line.startswith("Udp6RcvbufErrors"):
                    found += int(line.split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return found


def _drops(bound: socket.socket) -> int:
    """The socket's sk_drops; 0 where the system doesn't tell."""
    if sys.platform != "linux":
        return 0
    try:
        words = bound.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_MEMINFO_DROPS + 1))
    except OSError:
        return 0
    if len(words) < 4 * (_MEMINFO_DROPS + 1):
        return 0
    drops: int = struct.unpack_from("=I", words, 4 * _MEMINFO_DROPS)[0]
    return drops
