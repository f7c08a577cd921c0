"""Who is the idlest, and what is kept of flows that have left."""

from hypothesis import given
from hypothesis import strategies as st

from vxsniff.flow.flow import CLOSED, OPEN, REMOVED, Flow
from vxsniff.flow.idle import IdleQueue

STEPS = st.lists(st.tuples(st.sampled_from(["add", "segment", "leave", "evict", "expire"]), st.integers(0, 30)))


@given(STEPS)
def test_the_idlest_is_the_one_whose_last_segment_is_the_oldest(steps):
    queue = IdleQueue(OPEN)
    flows: list[Flow] = []
    for now_ns, (what, number) in enumerate(steps, 1):
        chosen = flows[number % len(flows)] if flows else None
        if what == "add":
            flow = Flow(0, b"", now_ns)
            flow.state = OPEN
            flows.append(flow)
            queue.add(flow)
        elif what == "segment" and chosen is not None:
            chosen.last_ns = now_ns
        elif what == "leave" and chosen is not None:
            chosen.state = CLOSED
            flows.remove(chosen)
            queue.left()
        elif what == "evict" and flows:
            idlest = queue.idlest()
            assert idlest.last_ns == min(flow.last_ns for flow in flows)
            idlest.state = REMOVED
            flows.remove(idlest)
            queue.left()
        elif what == "expire":
            before_ns = now_ns - number
            found = queue.idle_since(before_ns)
            oldest_ns = min((flow.last_ns for flow in flows), default=now_ns)
            assert (found is not None) == (oldest_ns <= before_ns and bool(flows))
            assert found is None or found.last_ns == oldest_ns
        assert len(queue) == len(flows)
        assert queue.entry_count <= 2 * len(flows) + 64 + 1
    assert (queue.idlest() is None) == (not flows)


def test_a_long_lived_flow_at_the_top_does_not_keep_those_behind_it():
    queue = IdleQueue(OPEN)
    old = Flow(0, b"", 1)
    old.state = OPEN
    queue.add(old)
    for now_ns in range(2, 10_000):
        flow = Flow(0, b"", now_ns)
        flow.state = OPEN
        queue.add(flow)
        flow.state = CLOSED
        queue.left()
    assert queue.entry_count < 100
    assert queue.idlest() is old
