"""The thread that takes batches from the queue to their outlet, and tries again when that fails.

Retries follow exponential backoff with full jitter, from RETRY_FIRST_S to RETRY_MAX_S, heeding what the other end asks
for. A batch that is refused for good is counted as dead. Failures are logged at the first and then once a minute.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Final

from vxsniff.delivery import outlet as outlets
from vxsniff.delivery.outlet import Outlet
from vxsniff.delivery.queue import ACCEPTED, DEAD, DROPPED, Batch, BatchQueue

RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 30.0
SEND_TIMEOUT_S: Final = 30.0
LOG_EVERY_S: Final = 60.0

_log = logging.getLogger("vxsniff.delivery")


class Deliverer:
    """Runs the thread. `where` names the outlet in the log. `is_gone` is set when nobody is there to deliver to."""

    def __init__(self, queue: BatchQueue, outlet: Outlet, where: str) -> None:
        self.queue = queue
        self.is_gone = threading.Event()
        self.retries = 0
        self._outlet = outlet
        self._where = where
        self._thread = threading.Thread(target=self._run, name="deliver", daemon=True)
        self._stopping = threading.Event()
        self._deadline_s = 0.0
        self._failing = False
        self._logged_s = {"failure": -LOG_EVERY_S, "refusal": -LOG_EVERY_S}

    def start(self) -> None:
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Delivers what waits, for `grace_s` at most; what is left then counts as dropped."""
        self._deadline_s = time.monotonic() + grace_s
        self._stopping.set()
        self.queue.finish()
        done = self.queue.wait_until_done(grace_s)
        self.queue.abandon()
        self._thread.join(1.0 if done else 0.2)  # one that hangs in a write or an answer ends with the process

    def _run(self) -> None:
        while (batch := self.queue.take()) is not None:
            self.queue.end(batch, self._deliver(batch))
        self._outlet.close()

    def _deliver(self, batch: Batch) -> int:
        attempt = 0
        while True:
            timeout_s = SEND_TIMEOUT_S
            if self._stopping.is_set():
                timeout_s = max(0.1, self._deadline_s - time.monotonic())
            outcome = self._outlet.send(batch.data, timeout_s)
            if outcome.kind == outlets.ACCEPTED:
                self._recovered()
                return ACCEPTED
            if outcome.kind == outlets.REFUSED:
                self._warn("refusal", f"{self._where}: {outcome.reason}: {batch.calls} calls were refused for good")
                return DEAD
            if outcome.kind == outlets.GONE:
                self.is_gone.set()
                return DROPPED
            self._failing = True
            self.retries += 1
            waiting = self.queue.counts().waiting
            self._warn("failure", f"{self._where}: {outcome.reason}: {waiting} calls wait, trying again")
            pause_s = max(backoff_s(attempt, random.random()), outcome.after_s)
            attempt += 1
            if self._stopping.is_set():
                if time.monotonic() + min(pause_s, 1.0) >= self._deadline_s:
                    return DROPPED
                time.sleep(min(pause_s, 1.0))
            else:
                self._stopping.wait(pause_s)

    def _warn(self, what: str, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s[what] >= LOG_EVERY_S:
            self._logged_s[what] = now_s
            _log.warning(text)

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            self._logged_s["failure"] = -LOG_EVERY_S
            _log.info("%s: accepted again", self._where)


def backoff_s(attempt: int, draw: float) -> float:
    """The pause before try number `attempt` + 2; `draw`, from 0 to 1, spreads many senders out."""
    return min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(attempt, 16)) * (0.5 + draw / 2)
