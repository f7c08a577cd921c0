"""What every place that batches go to has in common."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from vxsniff.delivery.batch import Batch

ACCEPTED: Final = 0
RETRY: Final = 1
REFUSED: Final = 2
GONE: Final = 3


class Outcome(NamedTuple):
    """What became of one try: ACCEPTED; RETRY later (not before `after_s`); REFUSED for good; or nobody is there any
    more (GONE). `reason` is a short text for the log; `status` and `answer` are what a collector that refuses said.
    """

    kind: int
    reason: str = ""
    after_s: float = 0.0
    status: int = 0
    answer: str = ""


class Outlet(Protocol):
    """A place that batches go to. Used by one thread; never raises for what the other end does."""

    def send(self, batch: Batch, timeout_s: float) -> Outcome:
        """Tries to deliver a batch, for about `timeout_s` at most."""

    def close(self) -> None: ...
