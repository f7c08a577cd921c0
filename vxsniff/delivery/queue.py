"""Lines in, batches out, between the capturing thread and the delivering one. Bounded; counts every call.

A batch closes at `batch_bytes`, or when its first line is `batch_wait_s` old. Whatever waits lies in memory, or in the
spool, where the keeper's thread moves it when the collector is behind; what lies in the spool is older than what lies
in memory. When closed batches in memory pass `limit_bytes`, the oldest are dropped: capturing never waits. A capture
file is patient: with `drops` off nothing is dropped, and its reader looks at `wait_for_room` between its steps.

At any time: calls + found + brought_back == accepted + dead + dropped + purged + set_aside + spooled + waiting
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final, NamedTuple

from vxsniff.delivery.batch import Batch

ACCEPTED: Final = 0
DEAD: Final = 1
DROPPED: Final = 2
PURGED: Final = 3
SET_ASIDE: Final = 4

# The spool's state, as far as the queue cares.
SPOOL_CLOSED: Final = 0
SPOOL_READABLE: Final = 1  # what lies there can be delivered, nothing can be added
SPOOL_OPEN: Final = 2

SPOOL_AFTER_S: Final = 0.25
"""How long a closed batch may wait in memory for a collector that is behind."""


class QueueCounts(NamedTuple):
    """One consistent look at the counters."""

    calls: int = 0
    found: int = 0
    brought_back: int = 0
    accepted: int = 0
    dead: int = 0
    dropped: int = 0
    purged: int = 0
    set_aside: int = 0
    spooled: int = 0
    waiting: int = 0
    waiting_bytes: int = 0


class Nothing:
    """What `next` answers besides a batch."""


FROM_SPOOL: Final = Nothing()
THE_END: Final = Nothing()


class BatchQueue:
    """See the module's docstring. All methods may be called from any thread. `always` lets nothing be delivered that
    is not in the spool, as long as that is open.
    """

    def __init__(
        self,
        batch_bytes: int = 512 * 1024,
        batch_wait_s: float = 0.5,
        limit_bytes: int = 64 * 1024 * 1024,
        drops: bool = True,
        always: bool = False,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._batch_bytes = batch_bytes
        self._batch_wait_s = batch_wait_s
        self._drops = drops
        self._always = always
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._lines: list[bytes] = []  # the open batch
        self._lines_bytes = 0
        self._opened_s = 0.0
        self._closed: deque[Batch] = deque()
        self._closed_bytes = 0
        self._closed_calls = 0
        self._in_flight: Batch | None = None  # taken from memory, and not yet ended
        self._moving: list[Batch] = []  # on the way to the spool
        self._spool_state = SPOOL_CLOSED
        self._spooled_batches = 0
        self._spooled = 0
        self._finished = False
        self._flushing = False
        self._left = False
        self._abandoned = False
        self._calls = 0
        self._found = 0
        self._brought_back = 0
        self._ended = [0, 0, 0, 0, 0]

    # ---- the capturing side

    def add(self, line: bytes) -> None:
        """Takes a call's line."""
        with self._lock:  # as the condition does, which takes some calls to it
            self._calls += 1
            if self._abandoned:
                self._ended[DROPPED] += 1
                return
            if not self._lines:
                self._opened_s = time.monotonic()
                self._condition.notify_all()  # the time of this batch begins to run
            self._lines.append(line)
            self._lines_bytes += len(line)
            if self._lines_bytes >= self._batch_bytes:
                self._close_batch()

    def _close_batch(self) -> None:
        batch = Batch(len(self._lines), b"".join(self._lines))
        self._lines = []
        self._lines_bytes = 0
        self._closed.append(batch)
        self._closed_bytes += batch.size
        self._closed_calls += batch.calls
        self._condition.notify_all()
        self._drop_beyond_limit()

    def _drop_beyond_limit(self) -> None:
        while self._drops and self._closed_bytes > self.limit_bytes and len(self._closed) > 1:
            oldest = self._closed.popleft()
            self._closed_bytes -= oldest.size
            self._closed_calls -= oldest.calls
            self._ended[DROPPED] += oldest.calls

    def _close_when_due(self) -> float | None:
        """Closes the open batch when its time has come; the seconds until then, None when nothing is open."""
        if not self._lines:
            return None
        left_s = self._opened_s + self._batch_wait_s - time.monotonic()
        if left_s <= 0 or self._finished:
            self._close_batch()
            return None
        return left_s

    def wait_for_room(self, timeout_s: float) -> bool:
        """Waits until closed batches are within the limit; False when that takes longer."""
        with self._condition:
            return self._condition.wait_for(lambda: self._closed_bytes <= self.limit_bytes, timeout_s)

    def finish(self) -> None:
        """No more lines will come: the open batch need not wait, `next` gives THE_END behind the last one."""
        with self._condition:
            self._finished = True
            self._condition.notify_all()

    def wait_until_done(self, timeout_s: float) -> bool:
        """Waits until every batch has ended, or is left to the spool; False when that takes longer."""
        with self._condition:
            return self._condition.wait_for(lambda: self._left or not self._has_work(), timeout_s)

    def abandon(self) -> None:
        """Gives up: everything that waits in memory counts as dropped, and so does what comes."""
        with self._condition:
            if not self._abandoned:
                self._ended[DROPPED] += self._waiting()
                self._abandoned = True
                self._closed.clear()
                self._lines = []
                self._moving = []
                self._lines_bytes = self._closed_bytes = self._closed_calls = 0
                self._condition.notify_all()

    # ---- the delivering side

    def next(self) -> Batch | Nothing:
        """The oldest batch, once there is one: answer with `end` or `give_back`. FROM_SPOOL when the oldest lies there,
        THE_END when the queue is finished and nothing is left.
        """
        with self._condition:
            while not self._abandoned:
                if self._spooled_batches and self._spool_state != SPOOL_CLOSED:
                    return FROM_SPOOL
                due_s = self._close_when_due()
                if not self._moving:
                    if self._closed and not (self._always and self._spool_state == SPOOL_OPEN):
                        batch = self._in_flight = self._closed.popleft()
                        self._closed_bytes -= batch.size
                        self._closed_calls -= batch.calls
                        return batch
                    if self._finished and not self._closed:
                        break
                self._condition.wait(due_s)
            return THE_END

    def is_spooled(self, batch: Batch) -> bool:
        """Whether it has a place in the spool; waits for the keeper while it writes this very batch."""
        with self._condition:
            self._condition.wait_for(lambda: batch not in self._moving)
            return batch.row != 0

    def end(self, batch: Batch, how: int) -> None:
        """A batch was ACCEPTED, is DEAD or was DROPPED."""
        with self._condition:
            if batch is self._in_flight:
                self._in_flight = None
            if batch.row:
                self._spooled_batches -= 1
                self._spooled -= batch.calls
                self._ended[how] += batch.calls
            elif not self._abandoned:
                self._ended[how] += batch.calls
            self._condition.notify_all()

    def forget(self, batch: Batch) -> None:
        """A batch that was in the spool has ended there already: purged, or set aside with its file."""
        with self._condition:
            if batch is self._in_flight:
                self._in_flight = None
            self._condition.notify_all()

    def give_back(self, batch: Batch) -> None:
        """A batch stays undelivered; and nothing more will be delivered."""
        with self._condition:
            if batch is self._in_flight:
                self._in_flight = None
                if not batch.row and not self._abandoned:
                    self._closed.appendleft(batch)
                    self._closed_bytes += batch.size
                    self._closed_calls += batch.calls
            self._left = True
            self._condition.notify_all()

    # ---- the keeper's side

    def wait_to_spool(self, timeout_s: float) -> list[Batch]:
        """The batches that should be moved to the spool now, oldest first; none when there are none for that long.
        Answer with `moved` or `not_moved`.
        """
        end_s = time.monotonic() + timeout_s
        with self._condition:
            while not self._abandoned:
                due_s = self._close_when_due()
                batches, wait_s = self._behind(time.monotonic())
                if batches:
                    self._moving = batches
                    for batch in batches:
                        if batch is not self._in_flight:
                            self._closed.popleft()
                            self._closed_bytes -= batch.size
                            self._closed_calls -= batch.calls
                    return list(batches)
                left_s = end_s - time.monotonic()
                if left_s <= 0 or self._flushing:
                    break
                self._condition.wait(min(s for s in (left_s, due_s, wait_s) if s is not None))
            return []

    def _behind(self, now_s: float) -> tuple[list[Batch], float | None]:
        """What should be in the spool, and when that may change."""
        if self._spool_state != SPOOL_OPEN or self._moving:
            return [], None
        batches = list(self._closed)
        if self._in_flight is not None and not self._in_flight.row:
            batches.insert(0, self._in_flight)
        if not batches:
            return [], None
        if self._flushing or self._always or self._spooled_batches:
            return batches, None
        wait_s = batches[0].closed_s + SPOOL_AFTER_S - now_s
        return ([], wait_s) if wait_s > 0 else (batches, None)

    @property
    def in_flight(self) -> Batch | None:
        """The batch that is being delivered, when it was taken from memory."""
        return self._in_flight

    def moved(self, batches: list[Batch], dropped_batches: int, dropped_calls: int) -> None:
        """They are in the spool; so many older ones had to go there for it."""
        with self._condition:
            if not self._abandoned:
                self._moving = []
                self._spooled_batches += len(batches) - dropped_batches
                self._spooled += sum(batch.calls for batch in batches) - dropped_calls
                self._ended[DROPPED] += dropped_calls
                self._condition.notify_all()

    def not_moved(self, batches: list[Batch]) -> None:
        """They could not be written: they wait in memory."""
        with self._condition:
            if not self._abandoned:
                self._moving = []
                for batch in reversed(batches):
                    if batch is not self._in_flight:
                        self._closed.appendleft(batch)
                        self._closed_bytes += batch.size
                        self._closed_calls += batch.calls
                self._drop_beyond_limit()
                self._condition.notify_all()

    def set_spool_state(self, state: int) -> None:
        with self._condition:
            self._spool_state = state
            self._condition.notify_all()

    def spool_changed(self, batches: int, calls: int, at_start: bool = False) -> None:
        """The spool holds so many more than was known: they were found there at the start, or brought back from the
        dead letters; or so many less: they were purged.
        """
        with self._condition:
            self._spooled_batches += batches
            self._spooled += calls
            if at_start:
                self._found += calls
            elif calls > 0:
                self._brought_back += calls
            else:
                self._ended[PURGED] -= calls
            self._condition.notify_all()

    def spool_dropped(self, batches: int, calls: int) -> None:
        """For want of room in the spool these had to go."""
        with self._condition:
            self._spooled_batches -= batches
            self._spooled -= calls
            self._ended[DROPPED] += calls

    def spool_set_aside(self) -> None:
        """The spool's file was damaged; all in it has another place now."""
        with self._condition:
            self._ended[SET_ASIDE] += self._spooled
            self._spooled_batches = self._spooled = 0
            self._condition.notify_all()

    def flush(self) -> None:
        """From now on everything goes to the spool."""
        with self._condition:
            self._finished = self._flushing = True
            self._condition.notify_all()

    # ---- looks

    def _waiting(self) -> int:
        """Counted where it lies, not as a remainder: then the sum can tell when something is amiss."""
        if self._abandoned:
            return 0
        in_flight = self._in_flight
        is_apart = in_flight is not None and not in_flight.row and in_flight not in self._moving
        under_way = in_flight.calls if in_flight is not None and is_apart else 0
        return len(self._lines) + self._closed_calls + under_way + sum(batch.calls for batch in self._moving)

    def _has_work(self) -> bool:
        return self._waiting() > 0 or (self._spooled > 0 and self._spool_state != SPOOL_CLOSED)

    def counts(self) -> QueueCounts:
        with self._condition:
            accepted, dead, dropped, purged, set_aside = self._ended
            in_flight = self._in_flight.size if self._in_flight is not None else 0
            moving = sum(batch.size for batch in self._moving if batch is not self._in_flight)
            return QueueCounts(
                self._calls,
                self._found,
                self._brought_back,
                accepted,
                dead,
                dropped,
                purged,
                set_aside,
                self._spooled,
                self._waiting(),
                0 if self._abandoned else self._closed_bytes + self._lines_bytes + in_flight + moving,
            )
