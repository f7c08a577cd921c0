"""What a worker reports to its supervisor, again and again: its ledger, and whether it captures and how it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from vxsniff.app import ledgers
from vxsniff.app.inherited import Board
from vxsniff.app.ledger import Ledger

EVERY_S: Final = 0.25
"""So much of what a worker counted is not known when it is killed."""


class Report(NamedTuple):
    """`now_s` is when it was made, on the monotonic clock, which all processes share."""

    ledger: Ledger
    is_on: bool
    is_healthy: bool
    now_s: float

    def to_json(self) -> str:
        return json.dumps([ledgers.to_json(self.ledger), self.is_on, self.is_healthy, self.now_s])

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Raises ValueError for what is none."""
        try:
            ledger, is_on, is_healthy, now_s = json.loads(text)
            return cls(ledgers.from_json(ledger), bool(is_on), bool(is_healthy), float(now_s))
        except TypeError as error:
            raise ValueError(str(error)) from None


class Reporter:
    """Writes reports to a board, in a thread of its own. `close` when done."""

    def __init__(self, board: Board, look: Callable[[], Report]) -> None:
        self._board = board
        self._look = look
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._board.write(self._look().to_json())
            self._closing.wait(EVERY_S)

    def report(self) -> None:
        """The last one."""
        self.close()
        self._board.write(self._look().to_json())

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
