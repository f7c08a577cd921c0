"""One worker, as its supervisor sees it: a process that comes and goes, what it reports, and a way to ask it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from typing import Final

from vxsniff.app import ledgers
from vxsniff.app.control import ControlError, ask, listen_unnamed
from vxsniff.app.inherited import VARIABLE, Board, Numbers
from vxsniff.app.ledger import Ledger
from vxsniff.app.report import Report
from vxsniff.capture.group import SocketGroup

STEADY_S: Final = 10.0
"""One that died sooner is started again after a pause, which grows."""
PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0


class Member:
    """See the module's docstring."""

    def __init__(self, number: int, group: SocketGroup) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0
        self.start_s = 0.0
        """When it is to be started again."""
        self._listener: socket.socket | None = None
        self._address = b""
        self._group = group
        self._board = Board.create()
        self._last: Report | None = None
        self._former: list[Ledger] = []  # of processes that died
        self._deaths = 0  # one soon after the other

    def start(
        self, command: list[str], workers: int, is_on: bool, delivers: bool, inputs: Board, lifeline: int
    ) -> None:
        """Raises OSError."""
        self.started_s = time.monotonic()
        self._close_listener()  # who used it has shut it down, if it ended in order
        self._listener, self._address = listen_unnamed()
        numbers = Numbers(
            self.number,
            workers,
            is_on,
            delivers,
            tuple(self._group.ports),
            tuple(one.fileno() for one in self._group.of(self.number)),
            self._listener.fileno(),
            self._board.fd,
            inputs.fd,
            lifeline,
        )
        # In a process group of its own: Ctrl-C reaches it through its supervisor alone.
        self.process = subprocess.Popen(
            command,
            env={**os.environ, VARIABLE: numbers.as_text()},
            pass_fds=numbers.files,
            process_group=0,
            stdin=subprocess.DEVNULL,
        )

    @property
    def is_alive(self) -> bool:
        process = self.process
        return process is not None and process.poll() is None

    def report(self) -> Report | None:
        """Its latest one; None when it has made none yet, or is dead."""
        text = self._board.read()
        if text:
            with contextlib.suppress(ValueError):
                self._last = Report.from_json(text)
        return self._last

    def ledger(self) -> Ledger:
        """What it counts, and what counted those that died before it."""
        report = self.report()
        return ledgers.merged([*self._former, report.ledger] if report is not None else self._former, ())

    def died(self) -> float:
        """Takes its last report for what it was; the seconds until it is to be started again."""
        last = self.report()
        if last is not None:
            self._former = [ledgers.merged([*self._former, ledgers.settled(last.ledger)], ())]
        self._last = None
        self._board.clear()
        self.process = None
        now_s = time.monotonic()
        self._deaths = 0 if now_s - self.started_s >= STEADY_S else self._deaths + 1
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2.0 ** min(self._deaths - 1, 16)) if self._deaths else 0.0
        self.start_s = now_s + pause_s
        return pause_s

    def ask(self, words: list[str], timeout_s: float) -> tuple[bool, str]:
        try:
            return ask(self._address, words, timeout_s)
        except ControlError:
            return False, f"worker {self.number} does not answer"

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def close(self) -> None:
        self._close_listener()
        self._board.close()
