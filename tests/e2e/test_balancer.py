"""Three vxsniffs behind a Network Load Balancer: its choice of targets is simulated, everything else is real.

A source interface mirrors both directions of its connections under one outer address; the outer ports of the two
directions differ. With target stickiness `source_ip` all of it reaches one target; hashed by the outer 5-tuple, as it is
without, requests and responses part. A target whose /healthz does not say 200 gets no new flows, and one that is
deregistered loses those it has.
"""

import hashlib
import json
import socket
import time
from collections import Counter

import pytest

from tests.builders import CLIENT, SERVER, Conversation, Endpoint, answer, get, in_vxlan
from tests.e2e.program import Running, free_tcp_port, in_ledger, vxsniff
from vxsniff.app.metrics import ask_health

SOURCES = 12
CONNECTIONS = 4


def hashed(key: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % count


class Target:
    """A vxsniff and what it delivered."""

    def __init__(self, folder, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.health_port = free_tcp_port()
        options = ("--metrics", f"127.0.0.1:{self.health_port}", "--control", str(self.folder / "control.sock"))
        self.running = Running(*options, "--rules", "include debug", "--url", "calls.ndjson", cwd=self.folder)

    def is_healthy(self) -> bool:
        return ask_health("127.0.0.1", self.health_port).is_healthy

    def taken(self) -> int:
        """Datagrams that came, those that the kernel left out included."""
        words = ("status", "--control", str(self.folder / "control.sock"))
        text = vxsniff(*words, cwd=self.folder).stdout if self.running.process.poll() is None else self.running.log
        return in_ledger(text, "frames") + in_ledger(text, "kernel_filtered")

    def drain(self) -> None:
        assert vxsniff("off", "--control", str(self.folder / "control.sock"), cwd=self.folder).returncode == 0

    def calls(self) -> list[dict[str, str]]:
        path = self.folder / "calls.ndjson"
        return [dict(json.loads(line)) for line in path.read_bytes().splitlines()] if path.exists() else []


class Balancer:
    """Takes datagrams and chooses targets."""

    def __init__(self, targets: list[Target], sticky: bool = True) -> None:
        self._targets = list(targets)
        self._sticky = sticky
        self._chosen: dict[str, Target] = {}
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sent = 0

    def send(self, source: str, source_port: int, datagram: bytes) -> None:
        key = source if self._sticky else f"{source}:{source_port}"
        target = self._chosen.get(key)
        if target is None:
            healthy = [one for one in self._targets if one.is_healthy()]
            target = self._chosen[key] = healthy[hashed(key, len(healthy))]
        self._sender.sendto(datagram, ("127.0.0.1", target.running.port))
        self.sent += 1
        if self.sent % 32 == 0:
            time.sleep(0.005)

    def register(self, target: Target) -> None:
        self._targets.append(target)

    def deregister(self, target: Target) -> None:
        self._targets.remove(target)
        self._chosen = {key: chosen for key, chosen in self._chosen.items() if chosen is not target}

    def close(self) -> None:
        self._sender.close()


class Source:
    """An interface that is mirrored: a server with keep-alive connections, whose calls are numbered."""

    def __init__(self, number: int) -> None:
        self.address = f"10.1.0.{number}"
        self._vni = 100 + number
        self._talks = [
            Conversation(Endpoint(f"10.2.{number}.{n}", 40000 + n), Endpoint(self.address, 80))
            for n in range(CONNECTIONS)
        ]
        self.opened = False
        self.calls = 0

    def _mirror(self, balancer: Balancer, frames: list[bytes], from_client: bool) -> None:
        for frame in frames:
            # A hash of the inner packet that is not the same in both directions.
            port = 65408 + hashed(f"{self.address}{from_client}{frame[34:38].hex()}", 128)
            balancer.send(self.address, port, in_vxlan(frame, self._vni))

    def call(self, balancer: Balancer) -> None:
        """A call on each connection: the packets of each direction as that direction's flow."""
        for n, talk in enumerate(self._talks):
            if not self.opened:
                self._mirror(balancer, talk.open()[:1], True)
            path = f"/{self.address}/{n}/{self.calls}"
            request, _ = talk.send(CLIENT, get(path))
            self._mirror(balancer, [request], True)
            response, ack = talk.send(SERVER, answer(path.encode()))
            self._mirror(balancer, [response], False)
            self._mirror(balancer, [ack], True)
        self.opened = True
        self.calls += 1

    def paths(self) -> list[str]:
        return [f"/{self.address}/{n}/{number}" for n in range(CONNECTIONS) for number in range(self.calls)]


@pytest.fixture
def start(tmp_path):
    made: list[Target] = []

    def start_one(name):
        target = Target(tmp_path, name)
        made.append(target)
        target.running.__enter__()
        return target

    yield start_one
    for target in made:
        target.running.__exit__()


def visit(balancer, sources, rounds):
    for _ in range(rounds):
        for source in sources:
            source.call(balancer)


def delivered(targets):
    """Ends all targets; what each of them shipped, by path."""
    found: Counter[str] = Counter()
    for target in targets:
        if target.running.process.poll() is None:
            assert target.running.stop() == 0
        assert "does not close" not in target.running.log
        for call in target.calls():
            path = call["request_url"].removeprefix("http://shop.example")
            assert call["response_body"] == path, "an answer of another request"
            found[path] += 1
    return found


def all_taken(targets, sent):
    for _ in range(100):
        if sum(target.taken() for target in targets) == sent:
            return
        time.sleep(0.05)
    raise AssertionError("datagrams are missing")


@pytest.mark.timeout(180)
def test_each_call_comes_once_while_one_target_is_drained_and_one_is_added(start):
    first, second, third = targets = [start(name) for name in ("a", "b", "c")]
    balancer = Balancer(targets)
    sources = [Source(number) for number in range(SOURCES)]
    visit(balancer, sources, 3)
    all_taken(targets, balancer.sent)
    assert all(target.taken() for target in targets), "each has a share"

    # A fourth comes, for sources that are new; then the second is taken out, drained, and ends.
    fourth = start("d")
    balancer.register(fourth)
    sources += [Source(number) for number in range(SOURCES, 2 * SOURCES)]
    visit(balancer, sources, 2)
    all_taken([*targets, fourth], balancer.sent)
    balancer.deregister(second)
    second.drain()
    assert not second.is_healthy()
    before = len(second.calls())
    assert second.running.stop() == 0
    visit(balancer, sources, 3)
    all_taken([first, third, fourth], balancer.sent - second.taken())
    balancer.close()

    found = delivered([first, third, fourth, second])
    assert found == Counter(path for source in sources for path in source.paths())
    assert len(second.calls()) == before > 0
    assert fourth.calls()
    # Connections that moved were picked up midway, and say so.
    assert sum("midstream" in call.get("custom_field:capture", "") for call in first.calls() + third.calls()) > 0


@pytest.mark.timeout(120)
def test_without_stickiness_requests_and_responses_part_and_are_counted_as_halves(start):
    targets = [start(name) for name in ("a", "b", "c")]
    balancer = Balancer(targets, sticky=False)
    sources = [Source(number) for number in range(SOURCES)]
    visit(balancer, sources, 3)
    all_taken(targets, balancer.sent)
    balancer.close()
    found = delivered(targets)
    expected = [path for source in sources for path in source.paths()]
    assert max(found.values()) == 1
    assert len(found) < len(expected) * 0.6
    # Nothing is lost silently: each request and each response is a call, or a half of one.
    logs = [target.running.log for target in targets]
    for sums, ends in (
        ("requests", ("answered", "unanswered", "response_lost")),
        ("responses", ("answering", "orphan", "ambiguous")),
    ):
        assert sum(in_ledger(log, sums) for log in logs) <= len(expected)
        for log in logs:
            assert in_ledger(log, sums) == sum(in_ledger(log, end) for end in ends)
    assert sum(in_ledger(log, "unanswered") for log in logs) > 0
