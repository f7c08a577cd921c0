"""The delivering thread against collectors that fail in real ways. Every call ends once, and is counted."""

import json
import time

import pytest

from tests.e2e.collector import Collector
from vxsniff.delivery import deliverer
from vxsniff.delivery.deliverer import Deliverer, backoff_s
from vxsniff.delivery.post import PostOutlet
from vxsniff.delivery.queue import BatchQueue


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(deliverer, "RETRY_FIRST_S", 0.01)


def run(collector, count=10, grace_s=5.0, **queue_options):
    queue = BatchQueue(batch_bytes=30, batch_wait_s=0.02, **queue_options)
    thread = Deliverer(queue, PostOutlet(collector.url, True), collector.url)
    thread.start()
    for number in range(count):
        queue.add(json.dumps([["n", str(number)]]).encode() + b"\n")
    queue.wait_until_done(3)
    started_s = time.monotonic()
    thread.stop(grace_s)
    return queue.counts(), time.monotonic() - started_s, thread


def numbers(collector):
    return [call[0][1] for call in collector.calls()]


def test_calls_arrive_in_order():
    with Collector() as collector:
        counts, _, _ = run(collector, 200)
        assert numbers(collector) == [str(n) for n in range(200)]
    assert (counts.accepted, counts.dropped, counts.dead) == (200, 0, 0)


def test_a_collector_that_fails_for_a_while_gets_everything_in_the_end():
    with Collector(statuses=[500, 503, "reset", 429, 502, 204, 500]) as collector:
        counts, _, thread = run(collector, 20)
        assert sorted(numbers(collector), key=int) == [str(n) for n in range(20)]
    assert counts.accepted == 20
    assert thread.retries == 6


def test_a_batch_that_is_refused_for_good_is_dead_and_the_next_goes_on(caplog):
    with Collector(statuses=[403]) as collector:
        counts, _, _ = run(collector, 20)
        assert len(numbers(collector)) == counts.accepted
    assert counts.dead > 0
    assert counts.accepted + counts.dead == 20
    assert "403" in caplog.text
    assert "refused for good" in caplog.text


def test_a_collector_that_hangs_holds_the_end_up_for_the_grace_only():
    with Collector(statuses=["hang"] * 50) as collector:
        counts, took_s, _ = run(collector, 5, grace_s=0.5)
        collector.release.set()
    assert took_s < 3
    assert (counts.accepted, counts.dropped, counts.waiting) == (0, 5, 0)


def test_failures_are_logged_once_not_once_a_try(caplog):
    with Collector(statuses=[500] * 6) as collector:
        run(collector, 5)
    assert caplog.text.count("500 Internal Server Error") == 1


def test_pauses_grow_and_are_bounded_and_spread():
    deliverer_pauses = [backoff_s(attempt, 1.0) for attempt in range(30)]
    assert deliverer_pauses == sorted(deliverer_pauses)
    assert deliverer_pauses[-1] == deliverer.RETRY_MAX_S
    assert backoff_s(3, 0.0) == 0
    assert backoff_s(3, 0.5) == backoff_s(3, 1.0) / 2
