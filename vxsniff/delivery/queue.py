"""Lines in, batches out, between the capturing thread and the delivering one. Bounded; counts every call.

A batch closes at `batch_bytes`, or when its first line is `batch_wait_s` old. When closed batches pass `limit_bytes`,
the oldest are dropped: capturing never waits. A capture file is patient: with `drops` off nothing is dropped, and the
reader of the file looks at `wait_for_room` between its steps. The disk spool will take its place between the two
threads: what is dropped here today goes there.

At any time: calls == accepted + dead + dropped + waiting
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final, NamedTuple

ACCEPTED: Final = 0
DEAD: Final = 1
DROPPED: Final = 2


class Batch(NamedTuple):
    """Lines for one delivery."""

    data: bytes
    calls: int


class QueueCounts(NamedTuple):
    """One consistent look at the counters."""

    calls: int
    accepted: int
    dead: int
    dropped: int
    waiting: int
    waiting_bytes: int


class BatchQueue:
    """See the module's docstring. All methods may be called from any thread."""

    def __init__(
        self,
        batch_bytes: int = 256 * 1024,
        batch_wait_s: float = 1.0,
        limit_bytes: int = 64 * 1024 * 1024,
        drops: bool = True,
    ) -> None:
        self._batch_bytes = batch_bytes
        self._batch_wait_s = batch_wait_s
        self._limit_bytes = limit_bytes
        self._drops = drops
        self._condition = threading.Condition()
        self._lines: list[bytes] = []  # the open batch
        self._lines_bytes = 0
        self._opened_s = 0.0
        self._closed: deque[Batch] = deque()
        self._closed_bytes = 0
        self._finished = False
        self._abandoned = False
        self._calls = 0
        self._ended = [0, 0, 0]

    # ---- the capturing side

    def add(self, line: bytes) -> None:
        """Takes a call's line."""
        with self._condition:
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
        batch = Batch(b"".join(self._lines), len(self._lines))
        self._lines = []
        self._lines_bytes = 0
        self._closed.append(batch)
        self._closed_bytes += len(batch.data)
        self._condition.notify_all()
        while self._drops and self._closed_bytes > self._limit_bytes and len(self._closed) > 1:
            oldest = self._closed.popleft()
            self._closed_bytes -= len(oldest.data)
            self._ended[DROPPED] += oldest.calls

    def wait_for_room(self, timeout_s: float) -> bool:
        """Waits until closed batches are within the limit; False when that takes longer."""
        with self._condition:
            return self._condition.wait_for(lambda: self._closed_bytes <= self._limit_bytes, timeout_s)

    def finish(self) -> None:
        """No more lines will come: the open batch need not wait, `take` gives None behind the last one."""
        with self._condition:
            self._finished = True
            self._condition.notify_all()

    def wait_until_done(self, timeout_s: float) -> bool:
        """Waits until every batch has ended; False when that takes longer."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._waiting(), timeout_s)

    def abandon(self) -> None:
        """Gives up: everything that waits counts as dropped, and so does what comes."""
        with self._condition:
            if not self._abandoned:
                self._ended[DROPPED] += self._waiting()
                self._abandoned = True
                self._closed.clear()
                self._lines = []
                self._lines_bytes = self._closed_bytes = 0
                self._condition.notify_all()

    # ---- the delivering side

    def take(self) -> Batch | None:
        """The oldest batch, once there is one; None when the queue is finished and empty. Answer with `end`."""
        with self._condition:
            while not self._abandoned:
                if self._closed:
                    batch = self._closed.popleft()
                    self._closed_bytes -= len(batch.data)
                    return batch
                if self._lines:
                    left_s = self._opened_s + self._batch_wait_s - time.monotonic()
                    if left_s <= 0 or self._finished:
                        self._close_batch()
                    else:
                        self._condition.wait(left_s)
                elif self._finished:
                    return None
                else:
                    self._condition.wait()
            return None

    def end(self, batch: Batch, how: int) -> None:
        """A taken batch was ACCEPTED, is DEAD or was DROPPED."""
        with self._condition:
            if not self._abandoned:
                self._ended[how] += batch.calls
            self._condition.notify_all()

    # ---- looks

    def _waiting(self) -> int:
        return 0 if self._abandoned else self._calls - sum(self._ended)

    def counts(self) -> QueueCounts:
        with self._condition:
            accepted, dead, dropped = self._ended
            return QueueCounts(
                self._calls,
                accepted,
                dead,
                dropped,
                self._waiting(),
                0 if self._abandoned else self._closed_bytes + self._lines_bytes,
            )
