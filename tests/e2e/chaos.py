"""Steady traffic, a collector that fails in every way, and what must be true of the calls at the end."""

import json
import random
import socket
import time

from tests.builders import CLIENT, SERVER, Conversation, Endpoint, answer, get, in_vxlan
from tests.e2e.collector import Collector

FAULTS = (204, 204, 204, 500, 429, 503, 408, "reset", "taken", 0.4, 1.2)


class Traffic:
    """Calls of some connections in turn, each with its number, mirrored to a port of this machine."""

    def __init__(self, port: int, connections: int = 8, body_bytes: int = 400) -> None:
        self._target = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._connections = [
            Conversation(Endpoint("10.0.0.1", 40000 + n), Endpoint("10.0.0.2", 80), (n * 1000, n * 7777))
            for n in range(connections)
        ]
        self._body = b"x" * body_bytes
        self.sent: list[tuple[int, float]] = []  # number, and when
        for connection in self._connections:
            self._send(connection.open())

    def _send(self, frames) -> None:
        for frame in frames:
            self._socket.sendto(in_vxlan(frame, 123), self._target)

    def send(self, seconds: float, per_s: float) -> None:
        end_s = time.monotonic() + seconds
        next_s = time.monotonic()
        while next_s < end_s:
            time.sleep(max(0.0, next_s - time.monotonic()))
            next_s += 1 / per_s
            number = len(self.sent)
            connection = self._connections[number % len(self._connections)]
            self._send(connection.send(CLIENT, get(f"/{number % len(self._connections)}/{number}")))
            self._send(connection.send(SERVER, answer(self._body)))
            self.sent.append((number, time.monotonic()))

    def close(self) -> None:
        self._socket.close()


class Arrived:
    """What a collector got: each call once, by its id, in the order of its first arrival."""

    def __init__(self, lines) -> None:
        self.numbers: list[int] = []
        self.copies = 0
        seen: dict[str, int] = {}
        for line in lines:
            fields = dict(json.loads(line))
            number = int(fields["request_url"].rpartition("/")[2])
            call_id = fields["custom_field:call_id"]
            if call_id in seen:
                assert seen[call_id] == number, "one id, two calls"
                self.copies += 1
            else:
                seen[call_id] = number
                self.numbers.append(number)
        assert len(set(self.numbers)) == len(self.numbers), "one call, two ids"

    def assert_in_order(self, connections: int = 8) -> None:
        """Within each connection the calls arrived in the order in which they were made."""
        for connection in range(connections):
            own = [number for number in self.numbers if number % connections == connection]
            assert own == sorted(own)


def faulty(seed: int, count: int) -> list[object]:
    draw = random.Random(seed)
    return ["taken", 500, *(draw.choice(FAULTS) for _ in range(count))]


class Flaky:
    """A collector on one port that fails in turn, is killed, and comes back; all that any of them accepted."""

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self._current = Collector(statuses=faulty(seed, 10_000))
        self.port = self._current.port
        self.url = self._current.url
        self._lines: list[bytes] = []

    @property
    def lines(self) -> list[bytes]:
        return self._lines + (self._current.lines if self._current is not None else [])

    def heal(self) -> None:
        """From now on it takes everything."""
        self._current.statuses.clear()

    def kill(self) -> None:
        self._current.__exit__()
        self._lines += self._current.lines
        self._current = None

    def come_back(self) -> None:
        self._seed += 1
        self._current = Collector(self.port, statuses=faulty(self._seed, 10_000))

    def wait_for(self, count: int, timeout_s: float = 60) -> bool:
        """Until so many different calls arrived."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            if len(self.lines) >= count and len(Arrived(self.lines).numbers) >= count:
                return True
            time.sleep(0.1)
        return False

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        if self._current is not None:
            self._current.__exit__()
