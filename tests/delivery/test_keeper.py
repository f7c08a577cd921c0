"""Queue, keeper and deliverer together, on a real disk and with real collectors that are behind, down or wrong."""

import contextlib
import json
import os
import sqlite3
import subprocess
import threading
import time

import pytest

from tests.e2e.collector import Collector
from vxsniff.delivery import deliverer, keeper
from vxsniff.delivery.batch import Batch
from vxsniff.delivery.deliverer import Deliverer
from vxsniff.delivery.keeper import Keeper
from vxsniff.delivery.post import PostOutlet
from vxsniff.delivery.queue import BatchQueue
from vxsniff.delivery.spool import Spool


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(deliverer, "RETRY_FIRST_S", 0.02)
    monkeypatch.setattr(deliverer, "RETRY_MAX_S", 0.1)
    monkeypatch.setattr(keeper, "REOPEN_S", 0.2)
    monkeypatch.setattr(keeper, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("vxsniff.delivery.spool.BUSY_TIMEOUT_S", 0.05)


class Delivery:
    """What a worker has behind its pipeline."""

    def __init__(self, folder, url, limit_bytes=1 << 30, **options):
        self.queue = BatchQueue(**{"batch_bytes": 200, "batch_wait_s": 0.02, **options})
        self.spool = Spool(folder, limit_bytes=limit_bytes)
        self.keeper = Keeper(self.queue, self.spool)
        self.deliverer = Deliverer(self.queue, PostOutlet(url, True), url, self.keeper)
        self.deliverer.start()
        self.sent = 0

    def send(self, count, pace_s=0.0):
        for _ in range(count):
            self.queue.add(json.dumps([["n", str(self.sent)]]).encode() + b"\n")
            self.sent += 1
            if pace_s:
                time.sleep(pace_s)

    def stop(self, grace_s=5.0):
        self.deliverer.stop(grace_s)
        counts = self.queue.counts()
        ends = counts.accepted + counts.dead + counts.dropped + counts.purged + counts.set_aside
        assert counts.calls + counts.found + counts.brought_back == ends + counts.spooled + counts.waiting
        return counts

    def wait_until(self, is_so, timeout_s=10):
        end_s = time.monotonic() + timeout_s
        while not is_so(self.queue.counts()):
            assert time.monotonic() < end_s, self.queue.counts()
            time.sleep(0.01)


NOBODY = "http://127.0.0.1:9/message"


def numbers(collector):
    return [int(call[0][1]) for call in collector.calls()]


def test_in_quiet_times_the_disk_is_not_used(tmp_path):
    with Collector() as collector:
        delivery = Delivery(tmp_path, collector.url)
        delivery.send(100, 0.001)
        counts = delivery.stop()
        assert numbers(collector) == list(range(100))
    assert counts.accepted == 100
    with sqlite3.connect(delivery.spool.path) as db:
        assert db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'batch'").fetchone() == (0,)


def test_what_an_absent_collector_misses_is_delivered_in_order_after_a_restart(tmp_path):
    delivery = Delivery(tmp_path, NOBODY)
    delivery.send(500)
    delivery.wait_until(lambda counts: counts.spooled == 500)
    started_s = time.monotonic()
    counts = delivery.stop()
    assert time.monotonic() - started_s < 2, "an end does not wait for a collector that does not answer"
    assert (counts.spooled, counts.dropped) == (500, 0)
    with Collector() as collector:
        again = Delivery(tmp_path, collector.url)
        again.sent = 500
        again.send(100)
        assert collector.wait_for(600)
        counts = again.stop()
        assert numbers(collector) == list(range(600))
    assert (counts.found, counts.calls, counts.accepted, counts.spooled) == (500, 100, 600, 0)


def test_what_is_in_memory_at_the_end_goes_to_the_spool(tmp_path):
    delivery = Delivery(tmp_path, NOBODY, batch_wait_s=3600)
    delivery.send(3)
    counts = delivery.stop()
    assert (counts.spooled, counts.dropped, counts.waiting) == (3, 0, 0)


def test_a_collector_that_hangs_gets_what_it_held_up_after_a_restart(tmp_path):
    with Collector(statuses=["hang"] * 5) as collector:
        delivery = Delivery(tmp_path, collector.url)
        delivery.send(50)
        delivery.wait_until(lambda counts: counts.spooled == 50)  # with the batch that is under way
        counts = delivery.stop(0.2)
        collector.release.set()
        assert (counts.spooled, counts.dropped) == (50, 0)
        again = Delivery(tmp_path, collector.url)
        assert collector.wait_for(50)
        again.stop()
        assert numbers(collector) == list(range(50))


def test_a_collector_that_comes_and_goes_gets_each_call_in_order(tmp_path):
    statuses = [500, 204, 503, 429, "reset", 204, 408, 204, 502, 500, 204, "reset"] * 8
    with Collector(statuses=statuses) as collector:
        delivery = Delivery(tmp_path, collector.url)
        delivery.send(600, 0.0005)
        assert collector.wait_for(600)
        counts = delivery.stop()
        assert numbers(collector) == list(range(600))
    assert counts.accepted == 600


def test_always_delivers_only_what_is_on_disk(tmp_path):
    with Collector() as collector:
        delivery = Delivery(tmp_path, collector.url, always=True)
        delivery.send(100, 0.001)
        counts = delivery.stop()
        assert numbers(collector) == list(range(100))
    assert counts.accepted == 100
    with sqlite3.connect(delivery.spool.path) as db:
        rows = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'batch'").fetchone()[0]
    assert rows == collector.requests


def test_what_is_refused_for_good_is_a_dead_letter_with_the_answer(tmp_path, caplog):
    with Collector(statuses=[403]) as collector:
        delivery = Delivery(tmp_path, collector.url)
        delivery.send(30)
        delivery.wait_until(lambda counts: counts.accepted + counts.dead == 30)
        counts = delivery.stop()
        assert counts.dead + len(collector.lines) == 30
        assert counts.dead > 0
        guest = Spool(tmp_path, as_guest=True)
        guest.open()
        (letter,) = guest.entries(dead=True)
        assert (letter.status, letter.calls) == (403, counts.dead)
        guest.retry([letter.id])
        guest.close()
        again = Delivery(tmp_path, collector.url)
        assert collector.wait_for(30)
        again.stop()
        assert sorted(numbers(collector)) == list(range(30))


def test_dead_letters_brought_back_and_batches_purged_while_it_runs_are_counted(tmp_path):
    with Collector(statuses=[400]) as collector:
        delivery = Delivery(tmp_path, collector.url, batch_bytes=1)
        delivery.send(1)
        delivery.wait_until(lambda counts: counts.dead == 1)
        collector.statuses += [500] * 10_000
        delivery.send(9)
        delivery.wait_until(lambda counts: counts.spooled == 9)
        guest = Spool(tmp_path, as_guest=True)
        guest.open()
        assert guest.retry([letter.id for letter in guest.entries(dead=True)]) == 1
        delivery.wait_until(lambda counts: counts.brought_back == 1)
        assert guest.purge([entry.id for entry in guest.entries(dead=False)][2:5], dead=False) == 3
        delivery.wait_until(lambda counts: counts.purged == 3)
        guest.close()
        collector.statuses.clear()
        assert collector.wait_for(7)
        counts = delivery.stop()
        assert numbers(collector) == [1, 2, 6, 7, 8, 9, 0]
    assert (counts.accepted, counts.dead, counts.purged, counts.brought_back) == (7, 1, 3, 1)


def test_purging_the_batch_that_is_being_delivered_counts_it_once(tmp_path):
    with Collector(statuses=["hang"]) as collector:
        delivery = Delivery(tmp_path, collector.url)
        delivery.send(5)
        delivery.wait_until(lambda counts: counts.spooled == 5)
        guest = Spool(tmp_path, as_guest=True)
        guest.open()
        assert guest.purge([entry.id for entry in guest.entries(dead=False)], dead=False) == 5
        guest.close()
        collector.release.set()
        delivery.wait_until(lambda counts: counts.purged == 5)
        counts = delivery.stop()
    assert (counts.purged, counts.spooled, counts.waiting) == (5, 0, 0)


def test_beyond_the_limit_the_oldest_calls_are_dropped_and_counted_and_logged_once(tmp_path, caplog):
    delivery = Delivery(tmp_path, NOBODY, limit_bytes=1 << 20, batch_bytes=50_000)
    for number in range(60):
        delivery.queue.add(b"%d " % number + os.urandom(45_000).hex().encode() + b"\n")
        time.sleep(0.005)
    delivery.wait_until(lambda counts: counts.waiting == 0)
    counts = delivery.stop()
    assert counts.dropped > 20
    assert counts.dropped + counts.spooled == 60
    assert caplog.text.count("it is full: the oldest") == 1


@contextlib.contextmanager
def tmpfs(folder, size="1m"):
    """A disk of its own, that can be full and read-only."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
def test_with_a_full_disk_delivery_goes_on_from_memory_and_the_disk_is_used_again_later(tmp_path, caplog):
    caplog.set_level("INFO")
    with tmpfs(tmp_path / "disk") as disk, Collector(statuses=[500] * 100_000) as collector:
        delivery = Delivery(disk, collector.url)
        delivery.send(20)
        delivery.wait_until(lambda counts: counts.spooled == 20)
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while file.write(b"x" * 4096) == 4096:
                pass
        delivery.send(200)
        delivery.wait_until(lambda counts: counts.waiting > 150)
        end_s = time.monotonic() + 10
        while delivery.keeper.failures == 0:
            assert time.monotonic() < end_s
            time.sleep(0.01)
        collector.statuses.clear()
        assert collector.wait_for(220)
        assert numbers(collector) == list(range(220))
        ballast.unlink()
        time.sleep(0.5)
        collector.statuses += [500] * 100_000
        delivery.send(30)
        delivery.wait_until(lambda counts: counts.spooled == 30)
        counts = delivery.stop()
    assert (counts.accepted, counts.spooled, counts.dropped) == (220, 30, 0)
    assert "the disk is full" in caplog.text
    assert "in use again" in caplog.text


@pytest.mark.root
def test_with_a_read_only_disk_calls_wait_in_memory(tmp_path, caplog):
    with tmpfs(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Collector(statuses=[500] * 5) as collector:
            delivery = Delivery(disk, collector.url)
            delivery.send(50)
            assert collector.wait_for(50)
            counts = delivery.stop()
    assert counts.accepted == 50
    assert "read-only file system; calls wait in memory meanwhile" in caplog.text
    assert delivery.keeper.failures > 0


def test_a_spool_that_another_vxsniff_owns_is_left_alone(tmp_path, caplog):
    owner = Spool(tmp_path)
    owner.open()
    with Collector() as collector:
        delivery = Delivery(tmp_path, collector.url)
        delivery.send(50)
        assert collector.wait_for(50)
        counts = delivery.stop()
    assert counts.accepted == 50
    assert "another vxsniff uses it" in caplog.text
    owner.close()


def test_a_lock_held_for_a_while_is_waited_out_in_memory(tmp_path, caplog):
    delivery = Delivery(tmp_path, NOBODY)
    other = sqlite3.connect(delivery.spool.path)
    other.execute("BEGIN IMMEDIATE")
    delivery.send(20)
    end_s = time.monotonic() + 10
    while "another process holds its lock" not in caplog.text:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    other.execute("COMMIT")
    other.close()
    delivery.wait_until(lambda counts: counts.spooled == 20)
    assert delivery.stop().spooled == 20


def test_a_damaged_spool_is_set_aside_and_delivery_goes_on(tmp_path, caplog):
    first = Delivery(tmp_path, NOBODY)
    first.send(50)
    first.stop()
    path = first.spool.path
    path.write_bytes(b"garbage" * 10_000)
    with Collector() as collector:
        delivery = Delivery(tmp_path, collector.url)
        delivery.send(20)
        assert collector.wait_for(20)
        delivery.stop()
    assert "it is kept as" in caplog.text
    (kept,) = tmp_path.glob("*.damaged-*")
    assert kept.read_bytes() == b"garbage" * 10_000


def test_a_spool_damaged_while_it_runs_is_set_aside_and_its_calls_are_counted(tmp_path, caplog):
    delivery = Delivery(tmp_path, NOBODY)
    delivery.send(500)
    delivery.wait_until(lambda counts: counts.spooled == 500)
    with sqlite3.connect(delivery.spool.path) as db:
        db.execute("DROP TABLE batch")
    delivery.wait_until(lambda counts: counts.set_aside == 500)
    delivery.send(10)
    delivery.wait_until(lambda counts: counts.spooled == 10)
    counts = delivery.stop()
    assert (counts.set_aside, counts.spooled, counts.dropped) == (500, 10, 0)
    assert "it is kept as" in caplog.text


def test_a_disk_that_hangs_does_not_hold_up_the_capturing_side(tmp_path, monkeypatch):
    hangs = threading.Event()
    append = Spool.append

    def slow(self, *arguments):
        hangs.wait(20)
        return append(self, *arguments)

    monkeypatch.setattr(Spool, "append", slow)
    delivery = Delivery(tmp_path, NOBODY, limit_bytes=20_000, drops=True)
    delivery.queue.limit_bytes = 20_000
    slowest_s = 0.0
    for _ in range(2000):
        before_s = time.monotonic()
        delivery.send(1)
        slowest_s = max(slowest_s, time.monotonic() - before_s)
    counts = delivery.queue.counts()
    assert counts.waiting_bytes <= 20_000 + 60_000  # and what is on the way to the disk
    hangs.set()
    counts = delivery.stop()
    assert counts.dropped + counts.spooled == 2000
    assert slowest_s < 1


def test_a_spool_of_a_former_worker_that_is_in_use_is_taken_over_later(tmp_path):
    other = Spool(tmp_path, 3)
    other.open()
    other.append([Batch(2, b"one\ntwo\n")])
    with Collector() as collector:
        delivery = Delivery(tmp_path, collector.url)
        try:
            time.sleep(0.5)
            assert collector.lines == []
            other.close()
            assert collector.wait_for(2)
        finally:
            delivery.stop()
    assert not (tmp_path / "spool-3.sqlite").exists()
