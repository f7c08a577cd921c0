"""The queue between capture and delivery: batches, bounds, and a sum that closes."""

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from vxsniff.delivery.batch import Batch
from vxsniff.delivery.queue import (
    ACCEPTED,
    DEAD,
    DROPPED,
    FROM_SPOOL,
    SPOOL_CLOSED,
    SPOOL_OPEN,
    SPOOL_READABLE,
    THE_END,
    BatchQueue,
)


def closes(queue):
    n = queue.counts()
    assert n.waiting >= 0
    assert n.spooled >= 0
    came = n.calls + n.found + n.brought_back
    return came == n.accepted + n.dead + n.dropped + n.purged + n.set_aside + n.spooled + n.waiting


def test_a_batch_closes_at_its_size():
    queue = BatchQueue(batch_bytes=10, batch_wait_s=60)
    for _ in range(3):
        queue.add(b"12345")
    batch = queue.next()
    assert (batch.lines, batch.calls) == (b"1234512345", 2)
    assert closes(queue)


def test_a_batch_closes_when_its_first_line_is_old_enough():
    queue = BatchQueue(batch_bytes=1000, batch_wait_s=0.05)
    queue.add(b"line")
    assert queue.next().calls == 1


def test_a_finished_queue_gives_its_open_batch_at_once_and_then_nothing():
    queue = BatchQueue(batch_wait_s=3600)
    queue.add(b"line")
    queue.finish()
    batch = queue.next()
    queue.end(batch, ACCEPTED)
    assert queue.next() is THE_END
    assert queue.wait_until_done(0)


def test_beyond_the_limit_the_oldest_batches_are_dropped_and_counted():
    queue = BatchQueue(batch_bytes=10, limit_bytes=30)
    for number in range(10):
        queue.add(b"line %05d" % number)
    counts = queue.counts()
    assert counts.dropped == 7
    assert counts.waiting_bytes <= 30
    assert queue.next().lines == b"line 00007"
    assert closes(queue)


def test_a_batch_greater_than_the_limit_is_kept_all_the_same():
    queue = BatchQueue(batch_bytes=10, limit_bytes=30)
    queue.add(b"x" * 100)
    assert queue.next().calls == 1


def test_a_patient_queue_drops_nothing_and_tells_when_there_is_room():
    queue = BatchQueue(batch_bytes=10, limit_bytes=20, drops=False)
    for _ in range(5):
        queue.add(b"0123456789")
    assert queue.counts().dropped == 0
    assert not queue.wait_for_room(0)
    for _ in range(3):
        queue.end(queue.next(), ACCEPTED)
    assert queue.wait_for_room(0)


def test_what_is_abandoned_counts_as_dropped_with_what_is_under_way():
    queue = BatchQueue(batch_bytes=10)
    for _ in range(3):
        queue.add(b"0123456789")
    under_way = queue.next()
    queue.abandon()
    assert queue.counts().dropped == 3
    queue.end(under_way, ACCEPTED)  # too late: it is counted already
    queue.add(b"late")
    assert queue.next() is THE_END
    counts = queue.counts()
    assert (counts.dropped, counts.accepted, counts.waiting) == (4, 0, 0)
    assert closes(queue)


@settings(max_examples=400)
@given(
    st.lists(
        st.tuples(st.sampled_from("aaatemmoknpsfg"), st.integers(1, 40), st.sampled_from([ACCEPTED, DEAD, DROPPED])),
        max_size=80,
    ),
    st.booleans(),
)
def test_the_sum_closes_and_order_holds_whatever_spool_and_collector_do(steps, always):
    queue = BatchQueue(batch_bytes=50, batch_wait_s=3600, limit_bytes=120, always=always)
    spool = Disk(queue)
    number = 0
    ended = []
    flying = None
    for what, size, how in steps:
        if what == "a":
            number += 1
            queue.add(b"%05d" % number + b"x" * size + b"\n")
        elif what == "t" and flying is None:
            flying = spool.take()
        elif what == "e" and flying is not None:
            ended.append(flying)
            spool.end(flying, how)
            flying = None
        elif what == "m":
            spool.move()
        elif what == "o":
            queue.set_spool_state([SPOOL_CLOSED, SPOOL_READABLE, SPOOL_OPEN, SPOOL_OPEN][size % 4])
        elif what == "k" and spool.rows and spool.rows[0] is not flying:
            queue.spool_changed(-1, -spool.rows.pop(0).calls)  # purged
        elif what == "n":
            spool.works = size % 3 > 0
        elif what == "p":
            spool.bring_back()
        elif what == "s" and size < 8:
            spool.rows.clear()
            queue.spool_set_aside()
        elif what == "f" and size < 8:
            queue.flush()
        elif what == "g" and flying is not None and size < 20:
            queue.give_back(flying)
            flying = None
        assert closes(queue)
        assert queue.counts().spooled == sum(batch.calls for batch in spool.rows)
    # While the spool can be used, calls end in the order in which they came.
    numbers = [int(line[:5]) for batch in ended for line in batch.lines.splitlines()]
    if not any(what in "op" for what, _, _ in steps):
        assert numbers == sorted(numbers)
    queue.abandon()
    assert closes(queue)


class Disk:
    """What keeper and spool do, in memory and one step at a time."""

    def __init__(self, queue):
        self.queue = queue
        self.rows = []
        self.works = True
        self.highest = 0
        queue.set_spool_state(SPOOL_OPEN)

    def move(self):
        batches = self.queue.wait_to_spool(0)
        if not batches:
            return
        if not self.works:
            self.queue.not_moved(batches)
            return
        for batch in batches:
            self.highest += 1
            batch.row = self.highest
        self.rows += batches
        self.queue.moved(batches, 0, 0)

    def bring_back(self):
        self.highest += 1
        self.rows.append(Batch(1, b"00000\n", row=self.highest))
        self.queue.spool_changed(1, 1)

    def take(self):
        queue = self.queue
        if not (queue._closed or self.rows) or queue._moving:
            return None
        if queue._always and queue._spool_state == SPOOL_OPEN and not self.rows:
            return None
        if not queue._closed and queue._spool_state == SPOOL_CLOSED:
            return None
        batch = queue.next()
        return self.rows[0] if batch is FROM_SPOOL else batch

    def end(self, batch, how):
        if batch.row and batch not in self.rows:
            self.queue.forget(batch)
            return
        if batch.row:
            self.rows.remove(batch)
        self.queue.end(batch, how)


def spooling(**options):
    queue = BatchQueue(batch_bytes=10, batch_wait_s=3600, **options)
    queue.set_spool_state(SPOOL_OPEN)
    return queue


def test_while_the_collector_keeps_up_nothing_goes_to_the_spool():
    queue = spooling()
    for _ in range(5):
        queue.add(b"0123456789")
        batch = queue.next()
        assert queue.wait_to_spool(0) == []
        queue.end(batch, ACCEPTED)


def test_what_a_slow_collector_keeps_waiting_goes_to_the_spool_with_what_is_under_way_first():
    queue = spooling()
    for _ in range(3):
        queue.add(b"0123456789")
    under_way = queue.next()
    batches = queue.wait_to_spool(5)
    assert len(batches) == 3
    assert batches[0] is under_way


def test_behind_what_lies_in_the_spool_all_else_goes_there_at_once():
    queue = spooling()
    queue.spool_changed(1, 7, at_start=True)
    queue.add(b"0123456789")
    assert len(queue.wait_to_spool(0)) == 1
    assert queue.counts().found == 7


def test_always_gives_nothing_out_of_memory_while_the_spool_is_open():
    queue = spooling(always=True)
    queue.add(b"0123456789")
    (batch,) = queue.wait_to_spool(0)
    batch.row = 1
    queue.moved([batch], 0, 0)
    assert queue.next() is FROM_SPOOL
    queue.set_spool_state(SPOOL_CLOSED)
    queue.add(b"0123456789")
    assert queue.next().lines == b"0123456789"


def test_what_can_not_be_written_waits_in_memory_in_its_order_and_under_its_bound():
    queue = spooling(limit_bytes=30)
    for number in range(3):
        queue.add(b"line %05d" % number)
    queue.flush()
    batches = queue.wait_to_spool(0)
    for number in range(3, 6):
        queue.add(b"line %05d" % number)
    queue.not_moved(batches)
    queue.set_spool_state(SPOOL_READABLE)
    counts = queue.counts()
    assert (counts.dropped, counts.waiting_bytes) == (3, 30)
    assert queue.next().lines == b"line 00003"


def test_what_can_not_be_written_keeps_its_order():
    queue = spooling()
    for number in range(3):
        queue.add(b"line %05d" % number)
    under_way = queue.next()
    queue.not_moved(queue.wait_to_spool(5))
    queue.set_spool_state(SPOOL_READABLE)
    lines = [under_way.lines]
    queue.end(under_way, ACCEPTED)
    for _ in range(2):
        lines.append(queue.next().lines)
    assert lines == [b"line %05d" % number for number in range(3)]


def test_what_was_given_back_is_the_first_to_go_to_the_spool():
    queue = spooling()
    for number in range(3):
        queue.add(b"line %05d" % number)
    queue.give_back(queue.next())
    assert queue.wait_until_done(0)
    queue.flush()
    assert [batch.lines for batch in queue.wait_to_spool(0)] == [b"line %05d" % number for number in range(3)]


def test_a_batch_that_ends_while_it_is_being_written_waits_for_its_row():
    queue = spooling()
    queue.add(b"0123456789")
    under_way = queue.next()
    (moving,) = queue.wait_to_spool(5)
    assert moving is under_way

    def write():
        moving.row = 1
        queue.moved([moving], 0, 0)

    threading.Timer(0.05, write).start()
    assert queue.is_spooled(under_way)


def test_two_threads_lose_nothing():
    queue = BatchQueue(batch_bytes=100, batch_wait_s=0.01, limit_bytes=1 << 30)
    got = []

    def deliver():
        while (batch := queue.next()) is not THE_END:
            got.append(batch.lines)
            queue.end(batch, ACCEPTED)

    thread = threading.Thread(target=deliver)
    thread.start()
    lines = [b"line %d\n" % number for number in range(20_000)]
    for line in lines:
        queue.add(line)
    queue.finish()
    assert queue.wait_until_done(20)
    thread.join()
    assert b"".join(got) == b"".join(lines)
    assert queue.counts().accepted == 20_000
