"""UDP sockets for mirrored packets -> datagrams with a timestamp. Linux; other systems get what they offer.

On Linux the kernel leaves out what nobody wants (`vxsniff.capture.kernel`).

A datagram is read whole (65 535 bytes): a jumbo frame must not be cut. The sender's address and the kernel's timestamps
cost as much again, so they are not asked for, and a datagram's time is when it was read, with what was there besides
(`vxsniff.capture.reader`). That clock is the wall clock's at start, carried on by one that never steps: capture times
never run backwards.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from vxsniff.capture import cbpf
from vxsniff.capture.drops import DropCounter
from vxsniff.capture.kernel import NOTHING, vxlan_filter
from vxsniff.capture.reader import reader_of
from vxsniff.capture.source import CaptureError, Note, Receiver
from vxsniff.wire.vxlan import VniFilter

RECEIVE_BUFFER_BYTES: Final = 64 * 1024 * 1024
BATCH_DATAGRAMS: Final = 512
"""At most so many datagrams are taken before control is given back."""

_IS_LINUX: Final = sys.platform == "linux"
# Linux constants that Python's socket module lacks (asm-generic/socket.h, linux/udp.h).
_SO_RCVBUFFORCE: Final = 33
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
        inherited: Sequence[socket.socket] = (),
        is_shut: bool = False,
    ) -> None:
        """Binds a socket for each port; raises CaptureError.

        Address `::` takes IPv4 and IPv6; where the system has no IPv6, IPv4 alone. `wanted` is as for `want`, and
        holds from the first datagram on. Sockets that are `inherited`, one for each port, are used in place of own
        ones: they are not closed, and who opened them counts what they drop; with `is_shut` they stay as they are.
        """
        self.now_ns = Clock().now_ns
        self._tunnels = [port.tunnel for port in ports]
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._sockets: list[socket.socket] = []
        self._owns = not inherited
        self._drops = DropCounter()
        self._notes: list[Note] = []
        program = vxlan_filter(*wanted) if wanted is not None and self._drops.can_tell else b""
        bound = list(inherited)
        try:
            for port, tunnel in ports if self._owns else ():
                one, takes_filter = bind(address, port, program if tunnel == VXLAN else b"")
                bound.append(one)
                self._drops.is_filtered = self._drops.is_filtered or takes_filter
        except CaptureError:
            for one in bound:
                one.close()
            raise
        self._sockets = bound
        self._readers = [reader_of(one) for one in bound]
        self.use(receiver)
        for one in bound:
            if self._poll is not None:
                self._poll.register(one, select.POLLIN)
        self.addresses: list[tuple[str, int]] = [one.getsockname()[:2] for one in bound]
        if self._owns:
            self._drops.watch(bound)
            self._notes.append(on_receive_buffer(bound[-1]))
        elif not is_shut:
            self.want_all()
            if wanted is not None:
                self.want(*wanted)

    def describe(self) -> str:
        return listening(self._tunnels, self.addresses)

    def notes(self) -> list[Note]:
        self._drops.count()  # often enough
        said, self._notes = self._notes, []
        return said

    def want(self, vnis: VniFilter, ports: frozenset[int]) -> None:
        if not self._drops.can_tell:
            return  # without it what is left out would look like loss
        program = vxlan_filter(vnis, ports)
        for tunnel, bound in zip(self._tunnels, self._sockets, strict=True):
            if tunnel == VXLAN:
                self._drops.is_filtered = attach(bound, program) or self._drops.is_filtered

    def want_all(self) -> None:
        for bound in self._sockets:
            with contextlib.suppress(OSError):  # there was none
                cbpf.detach_filter(bound)

    def shut_out(self) -> None:
        if not self._owns:
            shut_out(self._sockets)

    def use(self, receiver: Receiver) -> None:
        handlers = [_handler(receiver, tunnel) for tunnel in self._tunnels]
        self._ways = list(zip(self._readers, handlers, strict=True))

    def wait(self, timeout_ms: int) -> bool:
        """Waits until something may be read; False when the time is over first."""
        if self._poll is not None:
            return bool(self._poll.poll(timeout_ms))
        return bool(select.select(self._sockets, [], [], timeout_ms / 1000)[0])

    def receive(self) -> int:
        """Gives what has arrived to the handlers, at most BATCH_DATAGRAMS a socket; returns how many those were."""
        count = 0
        now_ns = self.now_ns
        for reader, handler in self._ways:
            end = count + BATCH_DATAGRAMS
            while count < end:
                batch = reader.read()
                ts_ns = now_ns()
                for data in batch:
                    handler(data, ts_ns)
                count += len(batch)
                if len(batch) < reader.at_once:
                    break
        return count

    @property
    def kernel_dropped(self) -> int:
        """Datagrams that the kernel dropped because a receive buffer was full, since the start."""
        return self._drops.count().lost

    @property
    def counts(self) -> Counter[str]:
        filtered = self._drops.count().filtered
        return Counter({KERNEL_FILTERED: filtered}) if self._drops.is_filtered and self._owns else Counter()

    def close(self) -> None:
        self._drops.stop()
        if self._owns:
            for bound in self._sockets:
                bound.close()
        self._sockets = []
        self._ways = []


def _handler(receiver: Receiver, tunnel: str) -> Handler:
    return receiver.vxlan_datagram if tunnel == VXLAN else receiver.geneve_datagram


def bind(address: str, port: int, program: bytes, shares: bool = False) -> tuple[socket.socket, bool]:
    """A socket, and whether the kernel took the filter. With `shares` others may bind there as well (SO_REUSEPORT).
    Raises CaptureError.
    """
    if address == "::" and not socket.has_dualstack_ipv6():
        address = "0.0.0.0"
    try:
        return _bind(address, port, program, shares)
    except OSError as error:
        raise CaptureError(_bind_advice(error, address, port)) from None


def _bind(address: str, port: int, program: bytes, shares: bool) -> tuple[socket.socket, bool]:
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
        if shares:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        takes_filter = bool(program) and attach(bound, program)
        bound.setblocking(False)
        bound.bind(where)
        _grow_receive_buffer(bound)
    except OSError:
        bound.close()
        raise
    return bound, takes_filter


def attach(bound: socket.socket, program: bytes) -> bool:
    """Whether the kernel took it: a list that is too long for net.core.optmem_max is looked at in Python alone."""
    try:
        cbpf.attach_filter(bound, program)
    except OSError:
        with contextlib.suppress(OSError):  # there was none
            cbpf.detach_filter(bound)
        return False
    return True


def shut_out(sockets: Sequence[socket.socket]) -> None:
    """Nothing more comes into them."""
    for one in sockets:
        attach(one, NOTHING)


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


def _grow_receive_buffer(bound: socket.socket) -> None:
    """Asks for RECEIVE_BUFFER_BYTES. The kernel caps what it grants, and says nothing."""
    options = (_SO_RCVBUFFORCE, socket.SO_RCVBUF) if _IS_LINUX else (socket.SO_RCVBUF,)
    for option in options:
        try:
            bound.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER_BYTES)
            break
        except OSError:
            continue


def on_receive_buffer(bound: socket.socket) -> Note:
    """How much the kernel granted, and what to do when that is less than was asked for."""
    granted_bytes = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    if _IS_LINUX:
        granted_bytes //= 2  # it doubles, for its own use
    granted, wanted = granted_bytes / 2**20, RECEIVE_BUFFER_BYTES // 2**20
    if granted >= wanted:
        return Note(f"receive buffer: {granted:.0f} MiB")
    how = f"`sysctl -w net.core.rmem_max={RECEIVE_BUFFER_BYTES}` allows more"
    return Note(f"receive buffer: {granted:.1f} MiB of the {wanted} MiB asked for; {how}", is_warning=True)


def listening(tunnels: Sequence[str], addresses: Sequence[tuple[str, int]]) -> str:
    """Where what is listened to, in words."""
    bound = zip(tunnels, addresses, strict=True)
    return " and ".join(f"{name} on UDP {_address(*address)}" for name, address in bound)


def _address(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
