"""What a call costs with many connections, and what a byte costs in long bodies. In memory, one core."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from bench.offline import new_pipeline
from vxsniff.app.memory import tune_memory
from vxsniff.demo.frames import CLIENT, SERVER, Conversation, Endpoint, in_vxlan

CONNECTIONS = (10, 1_000, 100_000)
CALLS = 20_000
BODY_BYTES = (10_000, 100_000, 1_000_000)
TOTAL_BYTES = 40_000_000
REPEATS = 5
RECEIVED_AT_ONCE = 256
_MEMORY_BYTES = 4 << 30
_STEP_NS = 1_000
_SERVER = Endpoint("10.0.0.2", 80)
_REQUEST = b"GET /items/7 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"


def _answer(size: int) -> bytes:
    body = (b'{"id": 4711, "name": "round wooden table", "price": 49.5}, ' * (size // 58 + 1))[:size]
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (size, body)


def connections(count: int) -> Callable[[], float]:
    """Measures microseconds a call, the calls spread over so many open connections."""
    talks = [
        Conversation(Endpoint(f"10.{n >> 14 & 63}.{n >> 8 & 63}.{n & 255}", 2000 + n % 50_000), _SERVER)
        for n in range(count)
    ]
    answer = _answer(500)

    def call(talk: Conversation) -> list[bytes]:
        frames = (*talk.send(CLIENT, _REQUEST), *talk.send(SERVER, answer))
        return [in_vxlan(frame, 7) for frame in frames]

    used = [talks[number * max(1, count // CALLS) % count] for number in range(CALLS)]
    opening = [in_vxlan(frame, 7) for talk in talks for frame in talk.open()]
    for talk in dict.fromkeys(used):  # a connection's first call makes what the others find
        opening += call(talk)
    calls = [data for talk in used for data in call(talk)]
    return lambda: _seconds(opening, calls, CALLS) / CALLS * 1e6


def bodies(size: int) -> Callable[[], float]:
    """Measures nanoseconds a byte of answers of this size."""
    talk = Conversation(Endpoint("10.0.0.1", 2000), _SERVER)
    count = TOTAL_BYTES // size
    answer = _answer(size)
    opening = [in_vxlan(frame, 7) for frame in talk.open()]
    calls = [
        in_vxlan(frame, 7) for _ in range(count) for frame in (*talk.send(CLIENT, _REQUEST), *talk.send(SERVER, answer))
    ]
    return lambda: _seconds(opening, calls, count) / (count * size) * 1e9


def _seconds(opening: list[bytes], calls: list[bytes], count: int) -> float:
    """Processor time for the calls, on connections that are open. Their datagrams are copied just before: what was
    received is in the processor's cache, what is known of a connection that rests need not be.
    """
    pipeline = new_pipeline("debug", memory_limit_bytes=_MEMORY_BYTES)
    ts_ns = 0
    for data in opening:
        ts_ns += _STEP_NS
        pipeline.vxlan_datagram(data, ts_ns)
    gc.collect()
    before = pipeline.counters.shipped
    spent_s = 0.0
    for place in range(0, len(calls), RECEIVED_AT_ONCE):
        received = [bytes(memoryview(data)) for data in calls[place : place + RECEIVED_AT_ONCE]]
        started_s = time.process_time()
        for data in received:
            ts_ns += _STEP_NS
            pipeline.vxlan_datagram(data, ts_ns)
        spent_s += time.process_time() - started_s
    assert pipeline.counters.shipped - before == count, "a call is missing"
    return spent_s


def _best(measures: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The least of REPEATS rounds; in each round all are measured, as the machine may be slower for a while."""
    rounds = [{name: measure() for name, measure in measures.items()} for _ in range(REPEATS)]
    return {name: min(figures[name] for figures in rounds) for name in measures}


def run() -> dict[str, Any]:
    """Of the build that is imported, in a process that collects garbage as vxsniff does."""
    tune_memory()
    return {
        "us_per_call_by_connections": _best({str(count): connections(count) for count in CONNECTIONS}),
        "ns_per_byte_by_body": _best({str(size): bodies(size) for size in BODY_BYTES}),
    }


def show(name: str, found: dict[str, Any]) -> None:
    rows = (
        ("us_per_call_by_connections", "us a call", "connections"),
        ("ns_per_byte_by_body", "ns a byte", "bytes a body"),
    )
    for key, unit, of in rows:
        figures = found[key]
        parts = ", ".join(f"{float(figures[size]):.2f} with {int(size):,} {of}" for size in figures)
        first, *_, last = figures.values()
        print(f"{name}: {unit}: {parts}; last to first {last / first:.2f}")
