"""A collector that only counts, in a process of its own: `python -m tests.soak.counting PORT FILE`.

Answers 503 now and then. At SIGTERM it writes to FILE, as JSON, how many calls it took by the first part of their path,
and how many different ones by their ids.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import orjson

from tests.e2e.collector import Collector

FAILING_EVERY = 40


class Counting(Collector):
    def __init__(self, port: int) -> None:
        self.by_path: Counter[str] = Counter()
        self.ids: set[bytes] = set()
        super().__init__(port, statuses=_NowAndThen())

    def accept(self, body: bytes) -> None:
        for line in body.splitlines():
            fields = dict(orjson.loads(line))
            self.by_path[fields["request_url"].split("/")[3]] += 1
            self.ids.add(bytes.fromhex(fields["custom_field:call_id"]))


class _NowAndThen(list):
    """Statuses: 204, and 503 each FAILING_EVERYth time."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def __bool__(self) -> bool:
        return True

    def pop(self, index=0) -> int:
        self._count += 1
        return 204 if self._count % FAILING_EVERY else 503


def main() -> None:
    port, path = int(sys.argv[1]), Path(sys.argv[2])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    with Counting(port) as collector:
        print("ready", flush=True)
        stop.wait()
        said = {"by_path": collector.by_path, "ids": len(collector.ids), "complaints": collector.complaints}
        path.write_text(json.dumps(said))


if __name__ == "__main__":
    main()
