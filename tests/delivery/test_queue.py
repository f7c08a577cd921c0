"""The queue between capture and delivery: batches, bounds, and a sum that closes."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from vxsniff.delivery.queue import ACCEPTED, DEAD, DROPPED, BatchQueue


def closes(queue):
    counts = queue.counts()
    return counts.calls == counts.accepted + counts.dead + counts.dropped + counts.waiting


def test_a_batch_closes_at_its_size():
    queue = BatchQueue(batch_bytes=10, batch_wait_s=60)
    for _ in range(3):
        queue.add(b"12345")
    batch = queue.take()
    assert (batch.data, batch.calls) == (b"1234512345", 2)
    assert closes(queue)


def test_a_batch_closes_when_its_first_line_is_old_enough():
    queue = BatchQueue(batch_bytes=1000, batch_wait_s=0.05)
    queue.add(b"line")
    assert queue.take().calls == 1


def test_a_finished_queue_gives_its_open_batch_at_once_and_then_nothing():
    queue = BatchQueue(batch_wait_s=3600)
    queue.add(b"line")
    queue.finish()
    batch = queue.take()
    queue.end(batch, ACCEPTED)
    assert queue.take() is None
    assert queue.wait_until_done(0)


def test_beyond_the_limit_the_oldest_batches_are_dropped_and_counted():
    queue = BatchQueue(batch_bytes=10, limit_bytes=30)
    for number in range(10):
        queue.add(b"line %05d" % number)
    counts = queue.counts()
    assert counts.dropped == 7
    assert counts.waiting_bytes <= 30
    assert queue.take().data == b"line 00007"
    assert closes(queue)


def test_a_batch_greater_than_the_limit_is_kept_all_the_same():
    queue = BatchQueue(batch_bytes=10, limit_bytes=30)
    queue.add(b"x" * 100)
    assert queue.take().calls == 1


def test_a_patient_queue_drops_nothing_and_tells_when_there_is_room():
    queue = BatchQueue(batch_bytes=10, limit_bytes=20, drops=False)
    for _ in range(5):
        queue.add(b"0123456789")
    assert queue.counts().dropped == 0
    assert not queue.wait_for_room(0)
    for _ in range(3):
        queue.end(queue.take(), ACCEPTED)
    assert queue.wait_for_room(0)


def test_what_is_abandoned_counts_as_dropped_with_what_is_under_way():
    queue = BatchQueue(batch_bytes=10)
    for _ in range(3):
        queue.add(b"0123456789")
    under_way = queue.take()
    queue.abandon()
    assert queue.counts().dropped == 3
    queue.end(under_way, ACCEPTED)  # too late: it is counted already
    queue.add(b"late")
    assert queue.take() is None
    counts = queue.counts()
    assert (counts.dropped, counts.accepted, counts.waiting) == (4, 0, 0)
    assert closes(queue)


@given(
    st.lists(
        st.tuples(st.sampled_from("aaate"), st.integers(1, 40), st.sampled_from([ACCEPTED, DEAD, DROPPED])), max_size=60
    )
)
def test_the_sum_closes_after_every_step(steps):
    queue = BatchQueue(batch_bytes=50, batch_wait_s=3600, limit_bytes=120)
    taken = []
    for what, size, how in steps:
        if what == "a":
            queue.add(b"x" * size)
        elif what == "t" and queue._closed:
            taken.append(queue.take())
        elif what == "e" and taken:
            queue.end(taken.pop(), how)
        assert closes(queue)
    queue.abandon()
    assert closes(queue)


def test_two_threads_lose_nothing():
    queue = BatchQueue(batch_bytes=100, batch_wait_s=0.01, limit_bytes=1 << 30)
    got = []

    def deliver():
        while (batch := queue.take()) is not None:
            got.append(batch.data)
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
