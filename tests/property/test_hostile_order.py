"""For any recorded connection: however its segments are split, repeated, reordered within the window, and wherever its
sequence numbers wrap, the calls do not change, and every sum of the ledger closes.
"""

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import CLIENT, MS, SERVER, Conversation, Endpoint, Play, answer, get, post
from vxsniff.app import ledger

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n"
CONTINUE = post("/expect", b"granted", "Expect: 100-continue").partition(b"\r\n\r\n")
SCRIPTS = [
    [
        (CLIENT, get("/a", "X: 1")),
        (SERVER, answer(b"first")),
        (CLIENT, post("/b", b"q" * 3000)),
        (SERVER, answer(b"r" * 4000)),
    ],
    [(CLIENT, get("/1") + get("/2") + get("/3")), (SERVER, answer(b"1") + CHUNKED), (SERVER, answer(b"3"))],
    [
        (CLIENT, get("/h").replace(b"GET", b"HEAD")),
        (SERVER, b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n"),
        (CLIENT, get("/n")),
        (SERVER, answer(b"n")),
    ],
    [
        (CLIENT, CONTINUE[0] + CONTINUE[1]),
        (SERVER, b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CLIENT, CONTINUE[2]),
        (SERVER, answer(b"ok")),
    ],
    [(CLIENT, get("/c")), (SERVER, b"HTTP/1.0 200 OK\r\n\r\nuntil"), (SERVER, b" the end")],
    [
        (CLIENT, get("/ws", "Upgrade: websocket", "Connection: upgrade")),
        (SERVER, b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\n\r\n"),
        (SERVER, b"\x81\x01a"),
    ],
    [
        (CLIENT, get("/4")),
        (SERVER, b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        (CLIENT, get("/5")),
        (SERVER, b"HTTP/1.1 204 No\r\n\r\n"),
        (CLIENT, get("/6")),
        (SERVER, CHUNKED),
    ],
]
ENDS = (Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 80))


def frames_of(script, isns, mss):
    conversation = Conversation(*ENDS, isns, mss)
    frames = conversation.open()
    for side, data in script:
        frames += conversation.send(side, data)
    return frames + conversation.close(SERVER) + conversation.close(CLIENT)


def calls_of(frames, step_ns=MS):
    play = Play().frames(frames, step_ns=step_ns)
    play.finish()
    taken = ledger.take(play.pipeline, None)
    for equation in taken.equations[:-1]:
        assert equation.closes, equation
    assert play.pipeline.budget.used_bytes == 0
    assert play.pipeline.table.flow_count == 0
    calls = []
    for line in play.lines:
        # How it was captured is told; what was said must not change.
        calls.append([p for p in json.loads(line) if p[0] not in ("now", "interval", "custom_field:capture")])
    return sorted(calls)


EXPECTED = [calls_of(frames_of(script, (1000, 5000), 1460)) for script in SCRIPTS]


def test_the_recorded_connections_give_their_calls():
    assert [len(calls) for calls in EXPECTED] == [2, 3, 2, 1, 1, 1, 3]


NEAR_THE_WRAP = st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 5000, 2**32 - 1))


@settings(max_examples=400)
@given(
    st.integers(0, len(SCRIPTS) - 1),
    st.tuples(NEAR_THE_WRAP, NEAR_THE_WRAP),
    st.integers(20, 1460),
    st.integers(0, 2**32),
    st.floats(0, 12),
    st.floats(0, 0.5),
    st.floats(0.01, 1),
)
def test_splits_repeats_reordering_and_wraps_change_no_call(number, isns, mss, seed, window, repeats, pace):
    draw = random.Random(seed)
    frames = frames_of(SCRIPTS[number], isns, mss)
    frames = [frame for frame in frames for _ in range(2 if draw.random() < repeats else 1)]
    placed = sorted((i + draw.uniform(0, window), i, frame) for i, frame in enumerate(frames))
    # Slow enough that many waits of one connection pass, fast enough that no segment is later than they last.
    step_ns = int(pace * 180 * MS / max(window, 1))
    assert calls_of([frame for _, _, frame in placed], step_ns) == EXPECTED[number]


@settings(max_examples=60)
@given(st.integers(0, len(SCRIPTS) - 1), st.integers(1, 30))
def test_the_smallest_segments_change_no_call(number, mss):
    assert calls_of(frames_of(SCRIPTS[number], (7, 2**32 - 9), mss), MS // 20) == EXPECTED[number]


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.floats(0, 10), st.booleans())
def test_many_connections_at_once_over_two_mirrors_change_no_call(seed, window, both_ends):
    draw = random.Random(seed)
    sources = []
    for number, script in enumerate(SCRIPTS):
        conversation = Conversation(
            Endpoint("10.0.0.1", 40000 + number), ENDS[1], (draw.randrange(2**32), draw.randrange(2**32)), 700
        )
        frames = conversation.open()
        for side, data in script:
            frames += conversation.send(side, data)
        sources.append([(frame, 1) for frame in frames + conversation.close(CLIENT) + conversation.close(SERVER)])
    merged = []
    while any(sources):
        source = draw.choice([s for s in sources if s])
        merged.append(source.pop(0))
    if both_ends:
        merged = [copy for frame, _ in merged for copy in ((frame, 1), (frame, 2))]
    placed = sorted((i + draw.uniform(0, window), i, frame) for i, frame in enumerate(merged))
    play = Play()
    for _, _, (frame, vni) in placed:
        play.frames([frame], vni=vni)
    play.finish()
    got = sorted(
        [p for p in json.loads(line) if p[0] not in ("now", "interval", "custom_field:capture")] for line in play.lines
    )
    assert got == sorted(call for calls in EXPECTED for call in calls)
