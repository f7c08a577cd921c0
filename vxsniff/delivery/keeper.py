"""The thread that keeps the spool: moves what waits too long to disk, and gets along with disks that fail.

Whatever is wrong with the disk, capturing and delivery go on from memory; it is said in the log once a minute, counted
in `failures`, and tried again every REOPEN_S. A damaged or foreign file is set aside under another name.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from vxsniff.delivery.batch import Batch
from vxsniff.delivery.outlet import Outcome
from vxsniff.delivery.queue import DEAD, SPOOL_CLOSED, SPOOL_OPEN, SPOOL_READABLE, BatchQueue
from vxsniff.delivery.spool import Room, Spool, SpoolError

LOOK_EVERY_S: Final = 1.0
REOPEN_S: Final = 5.0
LOG_EVERY_S: Final = 60.0

_log = logging.getLogger("vxsniff.delivery")


class Keeper:
    """Runs the thread. The deliverer reads and ends what lies in the spool through it."""

    def __init__(self, queue: BatchQueue, spool: Spool, of: int = 1) -> None:
        """The spool is one of so many: what others left, that nobody uses any more, is shared among these."""
        self._queue = queue
        self._spool = spool
        self._of = of
        self.limit_bytes = spool.limit_bytes
        self.used_bytes = 0  # of the file; as of the last look
        self.failures = 0
        self.forgotten = 0  # calls of dead letters that had to make room
        self._thread = threading.Thread(target=self._run, name="keep", daemon=True)
        self._closing = threading.Event()
        self._opened = threading.Event()
        self._logged_s: dict[str, float] = {}
        self._try_again_s = 0.0
        self._adopt_again_s = 0.0
        self._was_found = False

    def start(self) -> None:
        """Returns when the spool is open, or it is known that it can't be."""
        self._thread.start()
        self._opened.wait(10.0)  # a great file on a slow disk is looked through while capturing goes on

    def close(self, timeout_s: float) -> None:
        """Moves everything that waits to the spool, and closes it."""
        self._queue.flush()
        self._closing.set()
        self._thread.join(timeout_s)

    # ---- for the deliverer

    def oldest(self) -> Batch | None:
        try:
            batch = self._spool.oldest()
            if batch is None:
                self._look()
            return batch
        except SpoolError as error:
            self._failed(error, SPOOL_CLOSED)
            return None

    def end(self, batch: Batch, how: int, outcome: Outcome) -> None:
        """Ends a batch that is in the spool; or one that is DEAD, and goes there."""
        existed, room = True, Room()
        try:
            if how == DEAD:
                existed, room = self._spool.bury(batch, outcome.status, outcome.answer)
            else:
                existed = self._spool.remove(batch)
        except SpoolError as error:
            self._failed(error, SPOOL_READABLE)
        if existed:
            self._queue.end(batch, how)
        else:
            self._queue.forget(batch)
        self._made_room(room)
        self._queue.spool_dropped(room.batches, room.calls)

    # ---- the thread

    def _run(self) -> None:
        self._open()
        self._opened.set()
        next_look_s = 0.0
        while True:
            batches = self._queue.wait_to_spool(LOOK_EVERY_S)
            if batches:
                self._move(batches)
            now_s = time.monotonic()
            if self._try_again_s:
                if now_s >= self._try_again_s and not self._closing.is_set():
                    self._open()
            elif now_s >= next_look_s or self._closing.is_set():
                next_look_s = now_s + LOOK_EVERY_S
                self._tidy()
            if self._closing.is_set() and not batches:
                break
        self._spool.close()

    def _open(self) -> None:
        self._try_again_s = 0.0
        self._spool.close()
        try:
            set_aside = self._spool.open()
            if set_aside:
                self._queue.spool_set_aside()
                _log.error("spool %s: %s", self._spool.path, set_aside)
            self._adopt()
            self._look()
        except SpoolError as error:
            self._failed(error, SPOOL_CLOSED)
            return
        self._queue.set_spool_state(SPOOL_OPEN)
        if "failure" in self._logged_s:
            del self._logged_s["failure"]
            _log.info("spool %s: in use again", self._spool.path)

    def _adopt(self) -> None:
        """What is left alone is tried again later."""
        for said in self._spool.adopt(self._of):
            self._say(said, said)
        self._adopt_again_s = time.monotonic() + REOPEN_S if self._spool.former(self._of) else 0.0

    def _look(self) -> None:
        """What others did to the file."""
        batches, calls = self._spool.changes()
        if batches or calls:
            self._queue.spool_changed(batches, calls, at_start=not self._was_found)
        self._was_found = True

    def _move(self, batches: list[Batch]) -> None:
        try:
            room = self._spool.append(batches, self._queue.in_flight)
        except SpoolError as error:
            self._failed(error, SPOOL_READABLE)
            self._queue.not_moved(batches)
            return
        self._queue.moved(batches, room.batches, room.calls)
        self._made_room(room)

    def _made_room(self, room: Room) -> None:
        if room.dead_calls:
            self.forgotten += room.dead_calls
            self._say("room", f"it is full: dead letters of {room.dead_calls} calls were deleted")
        if room.calls:
            self._say("room", f"it is full: the oldest {room.calls} calls were dropped")

    def _tidy(self) -> None:
        try:
            if self._adopt_again_s and time.monotonic() >= self._adopt_again_s:
                self._adopt()
            self._look()
            self.used_bytes = self._spool.tidy()
        except SpoolError as error:
            self._failed(error, SPOOL_CLOSED)

    def _failed(self, error: SpoolError, state: int) -> None:
        """Called from either thread."""
        self.failures += 1
        if error.is_damaged:
            state = SPOOL_CLOSED
        self._queue.set_spool_state(state)
        self._try_again_s = time.monotonic() + (0.0 if error.is_damaged else REOPEN_S)
        self._say("failure", f"{error}; calls wait in memory meanwhile")

    def _say(self, what: str, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s.get(what, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged_s[what] = now_s
            _log.warning("spool %s: %s", self._spool.path, text)
