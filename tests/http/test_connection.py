"""Connections through the whole pipeline: which calls come out of which bytes on the wire."""

import gc

import pytest

from tests.builders import CLIENT, MS, SERVER, Conversation, Endpoint, Play, answer, get, post, talk
from vxsniff.http import connection, stream

ENDS = (Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 80))


def played(*turns, **options):
    play = Play(**options)
    play.frames(talk(*turns))
    return play


def calls_of(*turns, **options):
    play = played(*turns, **options)
    calls = play.finish()
    check_counters(play)
    return calls


def check_counters(play):
    http = play.pipeline.http
    c = http.counters
    assert c.requests == c.exchanges + c.unanswered + c.responses_lost + http.open_requests
    assert c.responses == c.exchanges + c.orphans + c.ambiguous + http.open_responses
    if not play.pipeline.table.flow_count:
        assert (http.open_requests, http.open_responses) == (0, 0)
        assert play.pipeline.budget.used_bytes == 0
        assert not http.unanswered
        assert not http.blocked


def summary(calls):
    return [
        (c["request_method"], c["request_url"], c["response_code"], c.get("request_body"), c.get("response_body"))
        for c in calls
    ]


URL = "http://shop.example"


def test_calls_on_one_connection_are_paired_in_order():
    turns = []
    for i in range(5):
        turns += [(CLIENT, post(f"/{i}", b"q%d" % i)), (SERVER, answer(b"a%d" % i))]
    assert summary(calls_of(*turns)) == [("POST", f"{URL}/{i}", "200", f"q{i}", f"a{i}") for i in range(5)]


def test_pipelined_requests_get_their_own_answers():
    turns = [(CLIENT, b"".join(get(f"/{i}") for i in range(20)))]
    turns += [(SERVER, b"".join(answer(b"a%d" % i) for i in range(20)))]
    assert [c["response_body"] for c in calls_of(*turns)] == [f"a{i}" for i in range(20)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_the_size_of_segments_does_not_matter(size):
    turns = [(CLIENT, post("/a", b"hello") + get("/b")), (SERVER, answer(b"one") + answer(b"two"))]
    play = Play().frames(talk(*turns, mss=size), step_ns=MS // 10)
    assert [c["response_body"] for c in play.finish()] == ["one", "two"]


def test_a_head_response_has_no_body_whatever_its_length_says():
    turns = [
        (CLIENT, get("/a").replace(b"GET", b"HEAD")),
        (SERVER, b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
        (CLIENT, get("/b")),
        (SERVER, answer(b"body")),
    ]
    assert [(c["request_method"], c.get("response_body")) for c in calls_of(*turns)] == [
        ("HEAD", None),
        ("GET", "body"),
    ]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_204_and_304_have_no_body(status):
    head = f"HTTP/1.1 {status}\r\nContent-Length: 99\r\n\r\n".encode()
    turns = [(CLIENT, get("/a")), (SERVER, head), (CLIENT, get("/b")), (SERVER, answer(b"body"))]
    assert [c.get("response_body") for c in calls_of(*turns)] == [None, "body"]


def test_informational_responses_are_skipped():
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    play = played((CLIENT, get("/a")), (SERVER, hints + answer(b"x")))
    assert summary(play.finish()) == [("GET", f"{URL}/a", "200", None, "x")]
    assert play.pipeline.http.counters.informational == 2


def test_expect_100_continue_with_its_body_sent():
    head, body = post("/a", b"hello", "Expect: 100-continue").split(b"\r\n\r\n")
    turns = [
        (CLIENT, head + b"\r\n\r\n"),
        (SERVER, b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CLIENT, body),
        (SERVER, answer(b"ok")),
    ]
    assert summary(calls_of(*turns)) == [("POST", f"{URL}/a", "200", "hello", "ok")]


def test_expect_100_continue_refused_and_the_connection_goes_on():
    head = post("/a", b"x" * 500, "Expect: 100-continue").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    turns = [
        (CLIENT, head),
        (SERVER, answer(b"no", status="417 Expectation Failed")),
        (CLIENT, get("/b")),
        (SERVER, answer(b"yes")),
    ]
    calls = calls_of(*turns)
    assert summary(calls) == [("POST", f"{URL}/a", "417", None, "no"), ("GET", f"{URL}/b", "200", None, "yes")]
    assert "custom_field:capture" not in calls[0]


def test_a_response_may_come_before_the_end_of_its_request():
    conversation = Conversation(*ENDS)
    request = post("/big", b"b" * 4000)
    play = Play().frames(conversation.open() + conversation.send(CLIENT, request[:2000]))
    play.frames(conversation.send(SERVER, answer(b"early")) + conversation.send(CLIENT, request[2000:]))
    (call,) = play.finish()
    assert (call["request_body"], call["response_body"]) == ("b" * 4000, "early")
    check_counters(play)


def test_a_body_that_ends_with_the_connection_is_whole():
    turns = [
        (CLIENT, get("/a")),
        (SERVER, b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"),
        (SERVER, b" world"),
    ]
    (call,) = calls_of(*turns)
    assert call["response_body"] == "hello world"
    assert "custom_field:capture" not in call


def test_chunked_with_trailers_goes_on_with_the_next_message():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n"
    calls = calls_of((CLIENT, get("/a")), (SERVER, chunked), (CLIENT, get("/b")), (SERVER, answer(b"x")))
    assert [c["response_body"] for c in calls] == ["abcde", "x"]
    assert calls[0]["response_header:x-sum"] == "7"


def test_an_upgrade_is_a_call_and_ends_the_http_of_its_connection():
    upgrade = get("/chat", "Upgrade: websocket", "Connection: Upgrade")
    accepted = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    play = played((CLIENT, upgrade), (SERVER, accepted + b"\x81\x05hello"), (CLIENT, b"\x81\x85GET / HTTP/1.1\r\n"))
    assert summary(play.finish()) == [("GET", f"{URL}/chat", "101", None, None)]
    assert play.pipeline.http.counters.upgraded_flows == 1
    assert play.pipeline.table.ignored_bytes > 0


def test_an_upgrade_that_was_declined_goes_on_as_http():
    upgrade = get("/a", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings")
    calls = calls_of((CLIENT, upgrade), (SERVER, answer(b"no")), (CLIENT, get("/b")), (SERVER, answer(b"yes")))
    assert [c["response_body"] for c in calls] == ["no", "yes"]


def test_a_connect_tunnel_ends_the_http_of_its_connection():
    turns = [
        (CLIENT, b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n"),
        (SERVER, b"HTTP/1.1 200 Connection established\r\n\r\n"),
        (CLIENT, b"\0\0\0\x08\x04\xd2\x16\x2f"),
    ]
    assert summary(calls_of(*turns)) == [("CONNECT", "http://db:5432", "200", None, None)]


@pytest.mark.parametrize(
    ("first", "counter"),
    [
        (b"\x16\x03\x01\x00\xc0\x01\x00\x00\xbc\x03\x03" + bytes(60), "tls_flows"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40), "http2_flows"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "other_flows"),
    ],
)
def test_what_is_not_http1_is_counted_once_and_left_alone(first, counter):
    play = played((CLIENT, first), (SERVER, b"\0" * 50), (CLIENT, b"more"), (CLIENT, b"and more"))
    assert play.finish() == []
    assert getattr(play.pipeline.http.counters, counter) == 1
    assert play.pipeline.table.ignored_bytes > 0
    check_counters(play)


def test_a_request_without_an_answer_is_counted():
    play = played((CLIENT, get("/a")))
    assert play.finish() == []
    assert play.pipeline.http.counters.unanswered == 1
    check_counters(play)


def test_a_request_waits_two_minutes_for_its_answer():
    conversation = Conversation(*ENDS)
    play = Play().frames(conversation.open() + conversation.send(CLIENT, get("/a")))
    play.wait(connection.UNANSWERED_NS / 1e9 - 1)
    assert play.pipeline.http.counters.unanswered == 0
    play.wait(2)
    assert play.pipeline.http.counters.unanswered == 1
    # Its answer, when it comes after all, is not given to the next request.
    play.frames(conversation.send(SERVER, answer(b"late")) + conversation.send(CLIENT, get("/b")))
    play.frames(conversation.send(SERVER, answer(b"right")))
    assert summary(play.finish()) == [("GET", f"{URL}/b", "200", None, "right")]
    check_counters(play)


def test_a_response_that_is_seen_first_waits_for_its_request():
    conversation = Conversation(*ENDS)
    opening = conversation.open()
    request = conversation.send(CLIENT, get("/a"))
    response = conversation.send(SERVER, answer(b"x"))
    play = Play().frames(opening + response + request)
    (call,) = play.finish()
    assert call["custom_field:capture"] == "late"
    assert play.pipeline.http.counters.late == 1
    check_counters(play)


def test_a_response_waits_for_its_request_only_so_long():
    conversation = Conversation(*ENDS)
    play = Play().frames(conversation.open())
    conversation.send(CLIENT, get("/never captured"))
    play.frames(conversation.send(SERVER, answer(b"x"))[:1]).wait(connection.RESPONSE_WAIT_NS / 1e9 + 1)
    assert play.pipeline.http.counters.orphans == 1
    play.frames(conversation.send(CLIENT, get("/b")) + conversation.send(SERVER, answer(b"y")))
    assert [c["response_body"] for c in play.finish()] == ["y"]
    check_counters(play)


def lossy(turns, lost):
    """Frames of a connection without those that carry the numbered turns."""
    conversation = Conversation(*ENDS)
    frames = conversation.open()
    for number, (side, data) in enumerate(turns):
        sent = conversation.send(side, data)
        frames += sent[-1:] if number in lost else sent
    return frames + conversation.close(CLIENT) + conversation.close(SERVER)


ROUND = [
    turn for i in range(6) for turn in ((CLIENT, get(f"/{i}", f"X-N: {i}")), (SERVER, answer(b"a%d" % i, f"X-N: {i}")))
]


@pytest.mark.parametrize("lost", [{4}, {5}, {4, 5}, {0}, {1}, {2, 3, 4}, {3, 6}, {5, 7, 8}, {10}, {11}, {0, 11}])
def test_lost_messages_never_give_a_wrong_pair(lost):
    play = Play().frames(lossy(ROUND, lost), step_ns=200 * MS)
    calls = play.finish()
    assert all(c["request_header:x-n"] == c["response_header:x-n"] for c in calls)
    hurt = {turn // 2 for turn in lost}
    # What the loss did not touch arrives; but where both messages of a call were lost, nothing proves the next one.
    hurt |= {call + 1 for call in range(5) if {2 * call, 2 * call + 1} <= lost}
    assert {int(c["request_header:x-n"]) for c in calls} == set(range(6)) - hurt
    check_counters(play)


def test_a_gap_inside_a_body_of_known_length_costs_that_body_only():
    conversation = Conversation(*ENDS)
    frames = conversation.open() + conversation.send(CLIENT, get("/a"))
    big = conversation.send(SERVER, answer(b"x" * 5000))
    del big[1]
    frames += big + conversation.send(CLIENT, get("/b")) + conversation.send(SERVER, answer(b"whole"))
    play = Play().frames(frames, step_ns=100 * MS)
    first, second = play.finish()
    assert first["custom_field:capture"] == "gap:1460"
    assert "response_body" not in first
    assert second["response_body"] == "whole"
    check_counters(play)


def test_a_gap_inside_a_chunk_costs_that_body_only():
    conversation = Conversation(*ENDS)
    chunk = b"%x\r\n" % 5000 + b"c" * 5000 + b"\r\n0\r\n\r\n"
    big = conversation.open() + conversation.send(CLIENT, get("/a"))
    response = conversation.send(SERVER, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
    del response[2]
    play = Play().frames(big + response + conversation.send(CLIENT, get("/b")), step_ns=100 * MS)
    play.frames(conversation.send(SERVER, answer(b"whole")))
    calls = play.finish()
    assert [c.get("custom_field:capture") for c in calls] == ["gap:1460", None]
    check_counters(play)


def test_a_frame_cut_by_the_mirror_costs_the_body_and_says_so():
    frames = talk((CLIENT, get("/a")), (SERVER, answer(b"x" * 1000)), (CLIENT, get("/b")), (SERVER, answer(b"y")))
    cut = [frame[:600] for frame in frames]
    first, second = Play().frames(cut).finish()
    assert first["custom_field:capture"].startswith("cut:")
    assert "response_body" not in first
    assert second["response_body"] == "y"


def test_a_body_longer_than_the_limit_keeps_its_beginning():
    (call,) = calls_of((CLIENT, get("/a")), (SERVER, answer(b"0123456789" * 200)), body_limit_bytes=1024)
    assert call["response_body"] == ("0123456789" * 200)[:1024]
    assert call["custom_field:capture"] == "limit:976"


def test_a_connection_picked_up_midway_says_so_at_its_first_call():
    frames = talk((CLIENT, get("/a")), (SERVER, answer(b"x")), (CLIENT, get("/b")), (SERVER, answer(b"y")))
    calls = Play().frames(frames[3:]).finish()
    assert [c.get("custom_field:capture") for c in calls] == ["midstream", None]


def test_the_roles_come_from_the_bytes_not_from_the_ports():
    turns = ((CLIENT, get("/a")), (SERVER, answer(b"x")))
    (call,) = (
        Play().frames(talk(*turns, client=Endpoint("10.0.0.1", 80), server=Endpoint("10.0.0.2", 45000))[3:]).finish()
    )
    assert call["response_body"] == "x"


def test_two_requests_may_arrive_in_one_segment_with_the_end_of_another():
    data = post("/a", b"body") + get("/b") + post("/c", b"end")
    turns = [(CLIENT, data[:90]), (CLIENT, data[90:]), (SERVER, answer(b"1") + answer(b"2") + answer(b"3"))]
    assert [c["response_body"] for c in calls_of(*turns)] == ["1", "2", "3"]


def test_empty_lines_between_requests_are_skipped():
    turns = [(CLIENT, post("/a", b"x") + b"\r\n\r\n" + get("/b")), (SERVER, answer(b"1") + answer(b"2"))]
    assert len(calls_of(*turns)) == 2


def test_http_1_0_without_a_host_header_is_named_by_the_servers_address():
    (call,) = calls_of((CLIENT, b"GET /a HTTP/1.0\r\n\r\n"), (SERVER, answer(b"x")))
    assert call["request_url"] == "http://10.0.0.2/a"


def test_an_absolute_target_is_the_url():
    (call,) = calls_of((CLIENT, get("http://other.example/a?b=c")), (SERVER, answer(b"x")))
    assert call["request_url"] == "http://other.example/a"
    assert call["request_param:b"] == "c"


def test_a_head_that_is_too_long_is_given_up():
    head = get("/a", *(f"X-{i}: {'v' * 1000}" for i in range(stream.MAX_HEAD_BYTES // 1000 + 5)))
    play = played((CLIENT, head), (SERVER, answer(b"x")), (CLIENT, get("/b")), (SERVER, answer(b"y")))
    assert "y" in [c["response_body"] for c in play.finish()]
    check_counters(play)


def test_requests_that_wait_are_bounded():
    count = connection.MAX_PENDING + 50
    play = Play().frames(talk((CLIENT, b"".join(get(f"/{i}") for i in range(count))), close=False))
    assert play.pipeline.http.open_requests == connection.MAX_PENDING
    assert play.pipeline.http.counters.unanswered == 50
    play.finish()
    check_counters(play)


def test_the_memory_limit_leaves_bodies_out_and_says_so():
    play = Play(memory_limit_bytes=400_000)
    play.frames(talk((CLIENT, get("/a")), (SERVER, answer(b"x" * 500_000))))
    (call,) = play.finish()
    assert call["custom_field:capture"].startswith("limit:")
    assert play.pipeline.budget.refused > 0
    assert play.pipeline.budget.used_bytes == 0


def test_an_open_body_of_an_ended_connection_ships_its_call_without_it():
    turns = [(CLIENT, get("/a")), (SERVER, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")]
    (call,) = calls_of(*turns)
    assert call["custom_field:capture"] == "cut:96"
    assert "response_body" not in call


def test_garbage_behind_a_message_is_searched_for_the_next_one():
    turns = [
        (CLIENT, get("/a")),
        (SERVER, answer(b"x") + b"garbage that is no status line\r\n"),
        (CLIENT, get("/b")),
        (SERVER, answer(b"y")),
    ]
    play = played(*turns)
    assert [c["response_body"] for c in play.finish()] == ["x", "y"]
    check_counters(play)


def test_what_follows_an_answer_that_waits_for_its_request_is_bounded():
    play = Play()
    play.frames(talk(close=False)[:3])
    big = answer(b"w" * 2 * stream.MAX_BACKLOG_BYTES)
    play.frames(talk((SERVER, big), close=False)[3:], step_ns=1000)
    # The answer was read without its request; what waited has gone with it.
    assert play.pipeline.budget.used_bytes < stream.MAX_BACKLOG_BYTES * 2
    assert play.pipeline.http.counters.orphans == 1
    assert play.pipeline.http.blocked == {}
    play.finish()
    check_counters(play)


def test_after_a_loss_no_answer_that_waits_takes_the_next_one_for_its_body():
    """The server's side alone, picked up midway: a chunked answer without its request, and its end is lost."""
    play = Play()
    conversation = Conversation(*ENDS)
    begun = conversation.send(SERVER, answer(status="200 OK")[:17] + b"Transfer-Encoding: chunked\r\n\r\n64\r\nhalf")[
        :1
    ]
    conversation.send(SERVER, b"x" * 500)  # never captured
    after = [conversation.send(SERVER, head)[0] for head in (answer(), b"HTTP/1.1 204 No Content\r\n\r\n")]
    play.frames(begun).wait(10)
    play.frames(after[:1]).wait(1.5)
    play.frames(after[1:])
    play.finish()
    assert play.pipeline.http.counters.orphans == 3
    check_counters(play)


def test_behind_an_upgrade_that_was_not_taken_a_body_that_looks_like_a_request_is_a_body():
    upgrade = get("/a", "Upgrade: h2c", "Connection: Upgrade")
    inner = get("/inner")
    request = post("/b", inner)
    calls = calls_of(
        (CLIENT, upgrade),
        (CLIENT, request[: -len(inner)]),
        (CLIENT, inner),
        (SERVER, answer(b"no")),
        (SERVER, answer(b"yes")),
    )
    assert summary(calls) == [
        ("GET", f"{URL}/a", "200", None, "no"),
        ("POST", f"{URL}/b", "200", inner.decode(), "yes"),
    ]


def test_a_connection_that_is_over_leaves_nothing_to_the_garbage_collector():
    """It runs by how many objects were made: what it has to free stays in memory for minutes."""
    gc.collect()
    gc.disable()
    try:
        play = Play()
        for number in range(20):
            ends = {"client": Endpoint("10.0.0.1", 40000 + number), "server": ENDS[1]}
            play.frames(talk((CLIENT, post("/a", b"b")), (SERVER, answer(b"c")), **ends))
            play.frames(
                talk((CLIENT, get("/open")), **{**ends, "client": Endpoint("10.0.0.2", number + 1)}, close=False)
            )
        play.finish()
        kinds = (connection.HttpConnection, stream.MessageStream)
        assert not [found for found in gc.get_objects() if isinstance(found, kinds)]
    finally:
        gc.enable()
