"""The thread that takes batches from the queue or the spool to their outlet, and tries again when that fails.

Retries follow exponential backoff with full jitter, up to RETRY_FIRST_S at first and RETRY_MAX_S at last, heeding what
the other end asks for. A batch that is refused for good is dead, and kept in the spool as such if there is one.
Failures are logged at the first and then once a minute.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Final

from vxsniff.delivery import outlet as outlets
from vxsniff.delivery.batch import Batch
from vxsniff.delivery.keeper import Keeper
from vxsniff.delivery.outlet import Outcome, Outlet
from vxsniff.delivery.queue import ACCEPTED, DEAD, DROPPED, FROM_SPOOL, BatchQueue

RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 30.0
SEND_TIMEOUT_S: Final = 30.0
LOG_EVERY_S: Final = 60.0
KEEP_S: Final = 2.0
"""How long writing the rest to the spool may take at the end."""

_log = logging.getLogger("vxsniff.delivery")


class Deliverer:
    """Runs the thread, and the keeper's if there is one. `where` names the outlet in the log. `is_gone` is set when
    nobody is there to deliver to.
    """

    def __init__(self, queue: BatchQueue, outlet: Outlet, where: str, keeper: Keeper | None = None) -> None:
        self.queue = queue
        self.is_gone = threading.Event()
        self.retries = 0
        self._outlet = outlet
        self.where = where
        self.keeper = keeper
        self._thread = threading.Thread(target=self._run, name="deliver", daemon=True)
        self._stopping = threading.Event()
        self._deadline_s = 0.0
        self._failing = False
        self._logged_s = {"failure": -LOG_EVERY_S, "refusal": -LOG_EVERY_S}

    def start(self) -> None:
        if self.keeper is not None:
            self.keeper.start()
        self._thread.start()

    def use(self, outlet: Outlet, where: str) -> None:
        """From the next try on, calls go there."""
        self._outlet, self.where = outlet, where

    def stop(self, grace_s: float) -> None:
        """Delivers what waits, for `grace_s` at most; what is left then goes to the spool, or counts as dropped."""
        self._deadline_s = time.monotonic() + grace_s
        self._stopping.set()
        self.queue.finish()
        done = self.queue.wait_until_done(grace_s)
        if self.keeper is not None:
            self.keeper.close(KEEP_S)
        self.queue.abandon()
        self._thread.join(1.0 if done else 0.2)  # one that hangs in a write or an answer ends with the process

    def _run(self) -> None:
        while True:
            following = self.queue.next()
            batch = self.keeper.oldest() if following is FROM_SPOOL and self.keeper is not None else following
            if batch is None:
                time.sleep(0.01)  # it was purged meanwhile, or can't be read now
                continue
            if not isinstance(batch, Batch):
                break
            if not self._deliver(batch):
                self.queue.give_back(batch)
                break
        self._outlet.close()

    def _deliver(self, batch: Batch) -> bool:
        """False when it is left where it is, for the next time."""
        attempt = 0
        while True:
            timeout_s = SEND_TIMEOUT_S
            if self._stopping.is_set():
                timeout_s = self._deadline_s - time.monotonic()
                if timeout_s <= 0 and self.keeper is not None:
                    return False
                timeout_s = max(0.1, timeout_s)
            outcome = self._outlet.send(batch, timeout_s)
            if outcome.kind == outlets.ACCEPTED:
                self._recovered()
                self._end(batch, ACCEPTED, outcome)
                return True
            if outcome.kind == outlets.REFUSED:
                self._warn("refusal", f"{self.where}: {outcome.reason}: {batch.calls} calls were refused for good")
                self._end(batch, DEAD, outcome)
                return True
            if outcome.kind == outlets.GONE:
                self.is_gone.set()
                self._end(batch, DROPPED, outcome)
                return True
            self._failing = True
            self.retries += 1
            counts = self.queue.counts()
            self._warn(
                "failure",
                f"{self.where}: {outcome.reason}: {counts.waiting + counts.spooled} calls wait, trying again",
            )
            pause_s = max(backoff_s(attempt, random.random()), outcome.after_s)
            attempt += 1
            if not self._stopping.is_set():
                self._stopping.wait(pause_s)
            elif self.keeper is not None:
                return False
            elif time.monotonic() + min(pause_s, 1.0) >= self._deadline_s:
                self._end(batch, DROPPED, outcome)
                return True
            else:
                time.sleep(min(pause_s, 1.0))

    def _end(self, batch: Batch, how: int, outcome: Outcome) -> None:
        is_spooled = self.queue.is_spooled(batch)
        if self.keeper is not None and (is_spooled or how == DEAD):
            self.keeper.end(batch, how, outcome)
        else:
            self.queue.end(batch, how)

    def _warn(self, what: str, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s[what] >= LOG_EVERY_S:
            self._logged_s[what] = now_s
            _log.warning(text)

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            self._logged_s["failure"] = -LOG_EVERY_S
            _log.info("%s: accepted again", self.where)


def backoff_s(attempt: int, draw: float) -> float:
    """The pause before try number `attempt` + 2. `draw`, from 0 to 1, spreads many senders over all of it."""
    return min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(attempt, 16)) * draw
