"""The sockets of several workers: one for each worker and port, opened once and kept, whoever comes and goes.

A worker that ends and is started again finds in its socket what came meanwhile. None is ever closed alone: the kernel
would move the last one of the group into its place, and connections with it.
"""

from __future__ import annotations

import contextlib
import socket

from vxsniff.capture import cbpf, steering
from vxsniff.capture.drops import DropCounter
from vxsniff.capture.kernel import NOTHING
from vxsniff.capture.source import CaptureError, Note
from vxsniff.capture.udp import VXLAN, Port, bind, listening, on_receive_buffer, shut_out


class SocketGroup:
    """Sockets of `workers` workers; `close` when done. Linux."""

    def __init__(self, address: str, ports: list[Port], workers: int, filters: bool) -> None:
        """Raises CaptureError. `filters` tells whether workers have the kernel leave out what they do not want."""
        self.ports = ports
        self._rows: list[list[socket.socket]] = []  # by port, by worker
        self.drops = DropCounter()
        self.drops.is_filtered = filters and self.drops.can_tell
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
        return listening([port.tunnel for port in self.ports], self._addresses)

    def note(self) -> Note:
        return on_receive_buffer(self._rows[-1][-1])

    def of(self, worker: int) -> list[socket.socket]:
        """Its sockets, in the order of the ports."""
        return [row[worker] for row in self._rows]

    def shut_out(self) -> None:
        """Nothing more comes into the sockets, and that is nobody's loss; what is in them can still be read."""
        self.drops.pause()
        for row in self._rows:
            shut_out(row)

    def let_in(self) -> None:
        """Everything comes in, until a worker says what it does not want."""
        for row in self._rows:
            _open_wide(row)
        self.drops.resume()

    def let_all_in(self, worker: int) -> None:
        """The same for one: whoever uses its sockets next may want something else than who used them last."""
        _open_wide(self.of(worker))

    def close(self) -> None:
        self.drops.stop()
        for row in self._rows:
            for one in row:
                one.close()
        self._rows = []


def _open_wide(sockets: list[socket.socket]) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):  # there was no filter
            cbpf.detach_filter(one)


def _open(address: str, port: int, workers: int, program: bytes) -> list[socket.socket]:
    """Sockets that share a port, shut to what comes: a group that is not complete would choose otherwise."""
    alone, _ = bind(address, port, b"")  # with others of ours, who share as well, there would be no error
    row: list[socket.socket] = []
    alone.close()
    try:
        for number in range(workers):
            one, _ = bind(address, port, NOTHING, shares=True)
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
