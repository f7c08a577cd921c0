"""The sockets of several workers: one for each worker and port, opened once and kept, whoever comes and goes.

A worker that ends and is started again finds in its socket what came meanwhile. None is ever closed alone: the kernel
would move the last one of the group into its place, and connections with it.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from vxsniff.capture import cbpf, steering
from vxsniff.capture.drops import DropCounter
from vxsniff.capture.kernel import vxlan_filter
from vxsniff.capture.source import CaptureError, Note
from vxsniff.capture.udp import VXLAN, Port, attach, bind, listening, on_receive_buffer
from vxsniff.wire.vxlan import VniFilter

_NOTHING: Final = steering.to_first()
"""As a filter: the program that returns 0 takes nothing."""


class SocketGroup:
    """Sockets of `workers` workers; `close` when done. Linux."""

    def __init__(
        self, address: str, ports: list[Port], workers: int, wanted: tuple[VniFilter, frozenset[int]] | None
    ) -> None:
        """Raises CaptureError. `wanted` is as for a Source's `want`."""
        self._tunnels = [port.tunnel for port in ports]
        self._wanted = wanted
        self._rows: list[list[socket.socket]] = []  # by port, by worker
        self.drops = DropCounter()
        self.drops.is_filtered = wanted is not None and self.drops.can_tell
        try:
            for port, tunnel in ports:
                program = steering.by_connection(workers) if tunnel == VXLAN else steering.to_first()
                self._rows.append(_open(address, port, workers, program))
        except CaptureError:
            self.close()
            raise
        self._addresses: list[tuple[str, int]] = [row[0].getsockname()[:2] for row in self._rows]
        self.drops.watch([one for row in self._rows for one in row])
        self.let_in()

    def describe(self) -> str:
        return listening(self._tunnels, self._addresses)

    def note(self) -> Note:
        return on_receive_buffer(self._rows[-1][-1])

    def of(self, worker: int) -> list[socket.socket]:
        """Its sockets, in the order of the ports."""
        return [row[worker] for row in self._rows]

    def shut_out(self) -> None:
        """Nothing more comes into the sockets, and that is nobody's loss; what is in them can still be read."""
        self.drops.pause()
        for row in self._rows:
            for one in row:
                attach(one, _NOTHING)

    def let_in(self) -> None:
        """What is wanted comes in."""
        program = vxlan_filter(*self._wanted) if self._wanted is not None and self.drops.can_tell else b""
        for tunnel, row in zip(self._tunnels, self._rows, strict=True):
            for one in row:
                if not (tunnel == VXLAN and program and attach(one, program)):
                    with contextlib.suppress(OSError):
                        cbpf.detach_filter(one)
        self.drops.resume()

    def close(self) -> None:
        self.drops.stop()
        for row in self._rows:
            for one in row:
                one.close()
        self._rows = []


def _open(address: str, port: int, workers: int, program: bytes) -> list[socket.socket]:
    """Sockets that share a port, shut to what comes: a group that is not complete would choose otherwise."""
    alone, _ = bind(address, port, b"")  # with others of ours, who share as well, there would be no error
    row: list[socket.socket] = []
    alone.close()
    try:
        for number in range(workers):
            one, _ = bind(address, port, _NOTHING, shares=True)
            row.append(one)
            if number == 0:
                cbpf.attach_steering(one, program)
    except (CaptureError, OSError) as error:
        for one in row:
            one.close()
        if isinstance(error, CaptureError):
            raise
        why = f"UDP port {port} can't be shared among workers: {error.strerror}"
        raise CaptureError(f"{why}; use --workers 1") from None
    return row
