"""What a worker has from the supervisor that started it: sockets, settings, a place to report to, a line to its life.

It is told of in an environment variable, VXSNIFF_WORKER, by numbers of open files: sockets of a group, a listening
socket for requests, a board to report on, one with the inputs of the settings that hold, and a pipe that is closed when
the supervisor has ended, however it did.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass
from typing import Final

from vxsniff.app.settings import Inputs
from vxsniff.capture.udp import Port

VARIABLE: Final = "VXSNIFF_WORKER"
_HEADER: Final = struct.Struct("=QQ")
_SLOT_BYTES: Final = 8 << 20


class Board:
    """The latest text of one process, for another to read, also when the first was killed. Two slots in a file in
    memory: the one that is not valid is written, then the header that says which is (how many were written; length).
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._written = 0

    def close(self) -> None:
        os.close(self.fd)

    @classmethod
    def create(cls) -> Board:
        return cls(os.memfd_create("vxsniff-board"))

    def write(self, text: str) -> None:
        """Raises ValueError when that is too long."""
        data = text.encode()
        if len(data) > _SLOT_BYTES:
            raise ValueError(f"more than {_SLOT_BYTES} bytes")
        self._written += 1
        os.pwrite(self.fd, data, _HEADER.size + _SLOT_BYTES * (self._written % 2))
        os.pwrite(self.fd, _HEADER.pack(self._written, len(data)), 0)

    def read(self) -> str:
        """Empty as long as nothing was written."""
        while len(header := os.pread(self.fd, _HEADER.size, 0)) == _HEADER.size:
            written, length = _HEADER.unpack(header)
            data = os.pread(self.fd, length, _HEADER.size + _SLOT_BYTES * (written % 2))
            if os.pread(self.fd, _HEADER.size, 0) == header:
                return data.decode(errors="replace")
        return ""

    def clear(self) -> None:
        os.ftruncate(self.fd, 0)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the variable holds: which worker of how many, whether it captures, whether calls went anywhere when the
    supervisor began, and numbers of open files.
    """

    worker: int
    workers: int
    is_on: bool
    delivers: bool
    ports: tuple[Port, ...]
    sockets: tuple[int, ...]
    control: int
    board: int
    inputs: int
    lifeline: int

    @property
    def files(self) -> tuple[int, ...]:
        return (*self.sockets, self.control, self.board, self.inputs, self.lifeline)

    def as_text(self) -> str:
        return json.dumps(asdict(self))


class Inherited:
    """The same, in the worker."""

    def __init__(self, numbers: Numbers) -> None:
        self.worker, self.workers = numbers.worker, numbers.workers
        self.is_on, self.delivers = numbers.is_on, numbers.delivers
        self.ports = [Port(*port) for port in numbers.ports]
        self.sockets = [socket.socket(fileno=fd) for fd in numbers.sockets]
        self.control = socket.socket(fileno=numbers.control)
        self.board = Board(numbers.board)
        self._inputs = Board(numbers.inputs)
        self._lifeline = numbers.lifeline

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Inherited | None:
        """None in a process that no supervisor has started. The variable is gone then."""
        text = environ.pop(VARIABLE, "")
        return cls(Numbers(**json.loads(text))) if text else None

    def inputs(self) -> Inputs:
        """What settings are to be made of, as the supervisor has it."""
        return Inputs(*json.loads(self._inputs.read()))

    def close_sockets(self) -> None:
        """They stay open in the supervisor, if there is one."""
        for one in self.sockets:
            one.close()

    def end_with_supervisor(self) -> None:
        """A supervisor that was killed could not say so: when it is gone, this process is asked to end."""
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def _watch(self) -> None:
        os.read(self._lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)
