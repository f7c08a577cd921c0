"""What a call costs with many connections, and what a byte costs in long bodies. In memory, one core."""

from __future__ import annotations

import gc
import time
from typing import Any

from bench.offline import _Packer
from vxsniff.app.pipeline import Pipeline, ndjson_format
from vxsniff.call.rules import parse_rules
from vxsniff.demo.frames import CLIENT, SERVER, Conversation, Endpoint, in_vxlan
from vxsniff.wire.vxlan import VniFilter

CONNECTIONS = (10, 1_000, 100_000)
CALLS = 20_000
BODY_BYTES = (10_000, 100_000, 1_000_000)
TOTAL_BYTES = 40_000_000
REPEATS = 3
_MEMORY_BYTES = 4 << 30
_STEP_NS = 1_000
_SERVER = Endpoint("10.0.0.2", 80)
_REQUEST = b"GET /items/7 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"


def _answer(size: int) -> bytes:
    body = (b'{"id": 4711, "name": "round wooden table", "price": 49.5}, ' * (size // 58 + 1))[:size]
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (size, body)


def _pipeline() -> Pipeline:
    return Pipeline(
        VniFilter(),
        parse_rules("include debug"),
        _Packer(),
        format_call=ndjson_format("bench"),
        draw=lambda: 0,
        on_error=_raise,
        memory_limit_bytes=_MEMORY_BYTES,
    )


def _raise(error: Exception) -> None:
    raise error


def connections(count: int) -> float:
    """Microseconds a call, the calls spread over so many open connections."""
    talks = [
        Conversation(Endpoint(f"10.{n >> 14 & 63}.{n >> 8 & 63}.{n & 255}", 2000 + n % 50_000), _SERVER)
        for n in range(count)
    ]
    opening = [in_vxlan(frame, 7) for talk in talks for frame in talk.open()]
    answer = _answer(500)
    calls = [
        in_vxlan(frame, 7)
        for number in range(CALLS)
        for side, data in ((CLIENT, _REQUEST), (SERVER, answer))
        for frame in talks[number * max(1, count // CALLS) % count].send(side, data)
    ]
    best = float("inf")
    for _ in range(REPEATS):
        pipeline = _pipeline()
        ts_ns = 0
        for data in opening:
            ts_ns += _STEP_NS
            pipeline.vxlan_datagram(data, ts_ns)
        gc.collect()
        started_s = time.process_time()
        for data in calls:
            ts_ns += _STEP_NS
            pipeline.vxlan_datagram(data, ts_ns)
        best = min(best, time.process_time() - started_s)
        assert pipeline.counters.shipped == CALLS, "a call is missing"
    return best / CALLS * 1e6


def bodies(size: int) -> float:
    """Nanoseconds a byte of answers of this size."""
    talk = Conversation(Endpoint("10.0.0.1", 2000), _SERVER)
    count = TOTAL_BYTES // size
    answer = _answer(size)
    datagrams = [in_vxlan(frame, 7) for frame in talk.open()]
    for _ in range(count):
        datagrams += [in_vxlan(frame, 7) for frame in (*talk.send(CLIENT, _REQUEST), *talk.send(SERVER, answer))]
    best = float("inf")
    for _ in range(REPEATS):
        pipeline = _pipeline()
        gc.collect()
        started_s = time.process_time()
        for number, data in enumerate(datagrams):
            pipeline.vxlan_datagram(data, number * _STEP_NS)
        best = min(best, time.process_time() - started_s)
        assert pipeline.counters.shipped == count, "a call is missing"
    return best / (count * size) * 1e9


def run() -> dict[str, Any]:
    """Of the build that is imported."""
    return {
        "us_per_call_by_connections": {str(count): connections(count) for count in CONNECTIONS},
        "ns_per_byte_by_body": {str(size): bodies(size) for size in BODY_BYTES},
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
