"""UDP sockets for mirrored packets -> datagrams with a timestamp. Linux; other systems get what they offer.

On Linux the kernel leaves out what nobody wants (`vxsniff.capture.kernel`). That counts in the socket's drops together
with real loss; what was lost for want of room is then RcvbufErrors of the network namespace (proc(5), /proc/net/snmp).

A datagram is read whole (65 535 bytes): a jumbo frame must not be cut. The plain `recv` costs half of `recvfrom` and
`recvmsg`; so the sender's address and the kernel's timestamps are not asked for, and a datagram's time is when it was
read. That clock is the wall clock's at start, carried on by one that never steps: capture times never run backwards.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from vxsniff.capture import cbpf
from vxsniff.capture.kernel import vxlan_filter
from vxsniff.capture.source import CaptureError, Note, Receiver
from vxsniff.wire.vxlan import VniFilter

MAX_DATAGRAM_BYTES: Final = 65_535
RECEIVE_BUFFER_BYTES: Final = 64 * 1024 * 1024
BATCH_DATAGRAMS: Final = 512
"""At most so many datagrams are taken before control is given back."""

_IS_LINUX: Final = sys.platform == "linux"
# Linux constants that Python's socket module lacks (asm-generic/socket.h, linux/udp.h).
_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
_MEMINFO_DROPS: Final = 8
_UDP_NO_CHECK6_RX: Final = 102

KERNEL_FILTERED: Final = "kernel_filtered"
VXLAN: Final = "VXLAN"
GENEVE: Final = "GENEVE"

Handler = Callable[[bytes, int], object]
"""Takes a datagram's payload and its time in nanoseconds since the epoch."""


class Clock:
    """Nanoseconds since the epoch that never step back."""

    def __init__(self) -> None:
        self._clock = getattr(time, "CLOCK_BOOTTIME", None)  # goes on while the machine sleeps
        self._offset_ns = time.time_ns() - self._steady_ns()

    def _steady_ns(self) -> int:
        return time.monotonic_ns() if self._clock is None else time.clock_gettime_ns(self._clock)

    def now_ns(self) -> int:
        return self._steady_ns() + self._offset_ns


class Port(NamedTuple):
    """A port to listen on, and what is spoken there: VXLAN or GENEVE."""

    number: int
    tunnel: str = VXLAN


class UdpSource:
    """The sockets that a mirror sends to. `close` when done."""

    def __init__(
        self,
        address: str,
        ports: list[Port],
        receiver: Receiver,
        wanted: tuple[VniFilter, frozenset[int]] | None = None,
    ) -> None:
        """Binds a socket for each port; raises CaptureError.

        Address `::` takes IPv4 and IPv6; where the system has no IPv6, IPv4 alone. `wanted` is as for `want`, and
        holds from the first datagram on.
        """
        self.now_ns = Clock().now_ns
        self._tunnels = [port.tunnel for port in ports]
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._sockets: dict[int, tuple[socket.socket, Handler]] = {}
        self.addresses: list[tuple[str, int]] = []
        self.receive_buffer_bytes = 0
        """What the kernel granted for each socket."""
        self._lock = threading.Lock()  # counts are looked at from any thread
        self._seen: dict[int, int] = {}
        self._drops = 0
        self._errors_seen = _receive_buffer_errors()
        self._errors = 0
        self._is_filtered = False
        program = vxlan_filter(*wanted) if wanted is not None and self._errors_seen is not None else b""
        for port, tunnel in ports:
            try:
                bound, takes_filter = _bind(address, port, program if tunnel == VXLAN else b"")
            except OSError as error:
                self.close()
                raise CaptureError(_bind_advice(error, address, port)) from None
            self._is_filtered = self._is_filtered or takes_filter
            self.receive_buffer_bytes = _grow_receive_buffer(bound)
            self._sockets[bound.fileno()] = (bound, _handler(receiver, tunnel))
            if self._poll is not None:
                self._poll.register(bound, select.POLLIN)
            self.addresses.append((bound.getsockname()[0], bound.getsockname()[1]))
        self._seen = {fd: _drops(bound) for fd, (bound, _) in self._sockets.items()}
        self._notes = [_on_receive_buffer(self.receive_buffer_bytes)]

    def describe(self) -> str:
        bound = zip(self._tunnels, self.addresses, strict=True)
        return " and ".join(f"{name} on UDP {_listening(*address)}" for name, address in bound)

    def notes(self) -> list[Note]:
        self._count()
        said, self._notes = self._notes, []
        return said

    def want(self, vnis: VniFilter, ports: frozenset[int]) -> None:
        if self._errors_seen is None:
            return  # without it what is left out would look like loss
        program = vxlan_filter(vnis, ports)
        for tunnel, (bound, _) in zip(self._tunnels, self._sockets.values(), strict=True):
            if tunnel == VXLAN:
                self._is_filtered = _attach(bound, program) or self._is_filtered

    def want_all(self) -> None:
        for tunnel, (bound, _) in zip(self._tunnels, self._sockets.values(), strict=True):
            if tunnel == VXLAN and self._errors_seen is not None:
                with contextlib.suppress(OSError):  # there was none
                    cbpf.detach_filter(bound)

    def use(self, receiver: Receiver) -> None:
        for tunnel, (fd, (bound, _)) in zip(self._tunnels, list(self._sockets.items()), strict=True):
            self._sockets[fd] = (bound, _handler(receiver, tunnel))

    def wait(self, timeout_ms: int) -> bool:
        """Waits until something may be read; False when the time is over first."""
        if self._poll is not None:
            return bool(self._poll.poll(timeout_ms))
        return bool(select.select(list(self._sockets), [], [], timeout_ms / 1000)[0])

    def receive(self) -> int:
        """Gives what has arrived to the handlers, at most BATCH_DATAGRAMS a socket; returns how many those were."""
        count = 0
        now_ns = self.now_ns
        for bound, handler in self._sockets.values():
            recv = bound.recv
            try:
                for _ in range(BATCH_DATAGRAMS):
                    data = recv(MAX_DATAGRAM_BYTES)
                    count += 1
                    handler(data, now_ns())
            except BlockingIOError:
                pass
            except ConnectionError:
                pass  # an ICMP error that someone sent us; a receiver has nobody to be refused by
        return count

    def _count(self) -> tuple[int, int]:
        """What the sockets dropped since the start, and how much of that for want of room.

        The counters of sockets have 32 bits: `notes` looks here often enough that none comes round unseen.
        """
        with self._lock:
            for fd, (bound, _) in self._sockets.items():
                now = _drops(bound)
                self._drops += (now - self._seen.get(fd, 0)) % 2**32
                self._seen[fd] = now
            if self._errors_seen is not None:
                errors = _receive_buffer_errors() or self._errors_seen
                self._errors += max(0, errors - self._errors_seen)
                self._errors_seen = errors
            return self._drops, min(self._drops, self._errors) if self._is_filtered else self._drops

    @property
    def kernel_dropped(self) -> int:
        """Datagrams that the kernel dropped because a receive buffer was full, since the start."""
        return self._count()[1]

    @property
    def counts(self) -> Counter[str]:
        dropped, lost = self._count()
        return Counter({KERNEL_FILTERED: dropped - lost}) if self._is_filtered else Counter()

    def close(self) -> None:
        with self._lock:
            for bound, _ in self._sockets.values():
                bound.close()
            self._sockets = {}


def _handler(receiver: Receiver, tunnel: str) -> Handler:
    return receiver.vxlan_datagram if tunnel == VXLAN else receiver.geneve_datagram


def _bind(address: str, port: int, program: bytes) -> tuple[socket.socket, bool]:
    """A socket, and whether the kernel took the filter."""
    if address == "::" and not socket.has_dualstack_ipv6():
        address = "0.0.0.0"
    info = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST)
    family, kind, protocol, _, where = info[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
            # Mirrors send without a UDP checksum, which IPv6 would drop.
            if _IS_LINUX:
                with contextlib.suppress(OSError):
                    bound.setsockopt(socket.IPPROTO_UDP, _UDP_NO_CHECK6_RX, 1)
        takes_filter = bool(program) and _attach(bound, program)
        bound.setblocking(False)
        bound.bind(where)
    except OSError:
        bound.close()
        raise
    return bound, takes_filter


def _attach(bound: socket.socket, program: bytes) -> bool:
    """Whether the kernel took it: a list that is too long for net.core.optmem_max is looked at in Python alone."""
    try:
        cbpf.attach_filter(bound, program)
    except OSError:
        with contextlib.suppress(OSError):  # there was none
            cbpf.detach_filter(bound)
        return False
    return True


def _bind_advice(error: OSError, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"UDP port {port} is in use: another receiver, or a kernel vxlan device with that port. "
            f"`ss -ulpn sport = :{port}` and `ip -d link show type vxlan` tell which; end it, or use --port"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to bind UDP port {port}: use a port from 1024 on, or give CAP_NET_BIND_SERVICE"
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return f"{address} is no address of this machine: `ip address` lists them; :: takes all"
    if isinstance(error, socket.gaierror):
        return f"{address!r} is no IP address: use one of this machine's, or :: for all"
    return f"UDP port {port} on {address} can't be bound: {error.strerror or error}"


def _grow_receive_buffer(bound: socket.socket) -> int:
    """Asks for RECEIVE_BUFFER_BYTES; returns what was granted (the kernel doubles, then caps, and says nothing)."""
    options = (_SO_RCVBUFFORCE, socket.SO_RCVBUF) if _IS_LINUX else (socket.SO_RCVBUF,)
    for option in options:
        try:
            bound.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER_BYTES)
            break
        except OSError:
            continue
    granted = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return granted // 2 if _IS_LINUX else granted


def _on_receive_buffer(granted_bytes: int) -> Note:
    granted, wanted = granted_bytes / 2**20, RECEIVE_BUFFER_BYTES // 2**20
    if granted >= wanted:
        return Note(f"receive buffer: {granted:.0f} MiB")
    how = f"`sysctl -w net.core.rmem_max={RECEIVE_BUFFER_BYTES}` allows more"
    return Note(f"receive buffer: {granted:.1f} MiB of the {wanted} MiB asked for; {how}", is_warning=True)


def _listening(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _receive_buffer_errors() -> int | None:
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
    if not _IS_LINUX:
        return 0
    try:
        words = bound.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_MEMINFO_DROPS + 1))
    except OSError:
        return 0
    if len(words) < 4 * (_MEMINFO_DROPS + 1):
        return 0
    drops: int = struct.unpack_from("=I", words, 4 * _MEMINFO_DROPS)[0]
    return drops
