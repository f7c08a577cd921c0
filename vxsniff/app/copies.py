"""Copies of what is shipped, for debugging, as network-sniffer 1.4 makes them: to a file a day, to an HTTP endpoint, to
standard output. They get what the rules leave, when it is shipped; and never keep anything waiting.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Final

from vxsniff.app import values
from vxsniff.app.ledger import Entry
from vxsniff.app.settings import Settings
from vxsniff.delivery.deliverer import Deliverer
from vxsniff.delivery.files import DailyOutlet, StreamOutlet
from vxsniff.delivery.outlet import Outlet
from vxsniff.delivery.queue import BatchQueue

BATCH_BYTES: Final = 65_536
BATCH_WAIT_S: Final = 0.5
LIMIT_BYTES: Final = 16 * 1024 * 1024
"""What waits of a copy; beyond it the oldest are left out."""

_log = logging.getLogger("vxsniff")


class Copies:
    """The copies that the settings ask for."""

    def __init__(self, chosen: Settings) -> None:
        self._deliverers = [
            Deliverer(BatchQueue(BATCH_BYTES, BATCH_WAIT_S, LIMIT_BYTES), outlet, where)
            for outlet, where in _wanted(chosen)
        ]

    def __bool__(self) -> bool:
        return bool(self._deliverers)

    def beside(self, ship: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Ships, and copies."""
        takers = [ship, *(deliverer.queue.add for deliverer in self._deliverers)]

        def ship_and_copy(line: bytes) -> None:
            for take in takers:
                take(line)

        return ship_and_copy if self else ship

    def start(self) -> None:
        for deliverer in self._deliverers:
            _log.info("debug: a copy of each call goes to %s", deliverer.where)
            deliverer.start()

    def stop(self, grace_s: float) -> None:
        for deliverer in self._deliverers:
            deliverer.stop(grace_s)

    def facts(self) -> tuple[Entry, ...]:
        counts = [deliverer.queue.counts() for deliverer in self._deliverers]
        return (
            Entry("debug_copied", sum(count.accepted for count in counts), "copies of calls written for debugging"),
            Entry(
                "debug_lost", sum(count.dropped + count.dead for count in counts), "copies that could not be written"
            ),
        )


def _wanted(chosen: Settings) -> Iterator[tuple[Outlet, str]]:
    if not chosen.debug:
        return
    if chosen.debug_export == values.EXPORT_LOCAL:
        yield DailyOutlet(), "a file a day in this folder"
    elif chosen.debug_export == values.EXPORT_HTTP:
        from vxsniff.delivery.post import PostOutlet

        compress = not chosen.rules.skip_compression
        yield PostOutlet(chosen.debug_endpoint, compress), values.without_password(chosen.debug_endpoint)
    if chosen.verbosity >= values.VERBOSITY_STDOUT and chosen.url not in (values.URL_STDOUT, values.URL_TTY):
        yield StreamOutlet(sys.stdout.fileno()), "standard output"
