"""The details of a call, in the order and form in which they are shipped."""

import json

import pytest

from tests.builders import CLIENT, SERVER, Endpoint, Play, answer, get, post, talk
from vxsniff.call.record import MAX_PARAMS


def lines(*turns, **options):
    play = Play(**options)
    play.frames(talk(*turns))
    play.finish()
    return [json.loads(line) for line in play.lines]


def ids_of(play):
    return [dict(json.loads(line))["custom_field:call_id"] for line in play.lines]


def names(call):
    return [name for name, _ in call]


def test_details_stand_in_the_order_of_the_format():
    request = post("/a?x=1&y=2", b'{"a":1}', "Cookie: Session=abc; other=1", "X-A: 1")
    (call,) = lines((CLIENT, request), (SERVER, answer(b"hello", "X-B: 2")))
    assert names(call) == [
        "request_method",
        "request_url",
        "response_code",
        "request_header:host",
        "request_header:content-length",
        "request_header:cookie",
        "request_header:x-a",
        "request_param:x",
        "request_param:y",
        "response_header:content-length",
        "response_header:content-type",
        "response_header:x-b",
        "request_body",
        "response_body",
        "session_field:session",
        "session_field:other",
        "now",
        "interval",
        "host",
    ]
    assert dict(call)["session_field:session"] == "abc"
    assert dict(call)["request_url"] == "http://shop.example/a"


def test_times_are_the_requests_first_byte_and_the_responses_last():
    (call,) = lines((CLIENT, get("/")), (SERVER, answer(b"x" * 4000)))
    fields = dict(call)
    # Handshake 3 frames, request 2, then three segments of the answer; a frame a millisecond.
    assert fields["now"] == "1700000000003"
    assert fields["interval"] == "4"


def test_an_interval_is_at_least_one_millisecond():
    play = Play()
    play.frames(talk((CLIENT, get("/")), (SERVER, answer())), step_ns=10)
    play.finish()
    assert dict(json.loads(play.lines[0]))["interval"] == "1"


def test_repeated_headers_are_details_of_their_own_in_order():
    (call,) = lines((CLIENT, get("/", "X-A: 1", "x-a: 2")), (SERVER, answer(b"", "Set-Cookie: a", "Set-Cookie: b")))
    assert [value for name, value in call if name == "request_header:x-a"] == ["1", "2"]
    assert [value for name, value in call if name == "response_header:set-cookie"] == ["a", "b"]


def test_empty_values_are_left_out():
    (call,) = lines((CLIENT, get("/?a=&b=1&c", "X-Empty:")), (SERVER, answer()))
    assert "request_header:x-empty" not in names(call)
    assert [name for name in names(call) if name.startswith("request_param")] == ["request_param:b"]


def test_parameters_are_decoded_and_lower_cased_query_before_form():
    form = post(
        "/?Q=a%20b+c&q=%C3%A4&bad=%ZZ",
        b"User=ada&q=3",
        "Content-Type: application/x-www-form-urlencoded; charset=UTF-8",
    )
    (call,) = lines((CLIENT, form), (SERVER, answer()))
    params = [(name.removeprefix("request_param:"), value) for name, value in call if name.startswith("request_param:")]
    assert params == [("q", "a b c"), ("q", "ä"), ("bad", "%ZZ"), ("user", "ada"), ("q", "3")]


def test_parameters_are_bounded_and_the_rest_is_counted():
    query = "&".join(f"p{number}=1" for number in range(MAX_PARAMS + 5))
    play = Play()
    play.frames(talk((CLIENT, get(f"/?{query}")), (SERVER, answer())))
    (call,) = play.finish()
    assert sum(name.startswith("request_param:") for name in call) == MAX_PARAMS
    assert play.pipeline.builder.counters.params_left_out > 0


@pytest.mark.parametrize("empty", ["", "&", "&&", "&&&&"])
def test_what_lies_behind_the_last_parameter_that_is_read_is_no_part_of_its_value(empty):
    query = empty + "&".join(f"p{number}=v" for number in range(MAX_PARAMS - 1)) + "&last=1&password=secret&more=2"
    for text in (query, query + "%20"):
        play = Play(rules="include debug\n/request_param:password/ remove")
        play.frames(talk((CLIENT, get(f"/?{text}")), (SERVER, answer())))
        (call,) = play.finish()
        assert call.get("request_param:last", "1") == "1"
        assert "secret" not in str(call)


@pytest.mark.parametrize(
    ("request_bytes", "url"),
    [
        (get("/a/b;c"), "http://shop.example/a/b;c"),
        (get("/a#b"), "http://shop.example/a#b"),
        (get("/", host="shop.example:8080"), "http://shop.example:8080/"),
        (get("*").replace(b"GET", b"OPTIONS"), "http://shop.example"),
        (get("https://up.example/x?y"), "https://up.example/x"),
        (get("/redirect?to=http://a/b"), "http://shop.example/redirect"),
        (get("://foo/x"), "://foo/x"),
    ],
)
def test_the_url_is_scheme_host_and_path_without_the_query(request_bytes, url):
    (call,) = lines((CLIENT, request_bytes), (SERVER, answer()))
    assert dict(call)["request_url"] == url


def test_ipv6_servers_without_a_host_header_stand_in_brackets():
    ends = {"client": Endpoint("fd00::1", 4000), "server": Endpoint("fd00::2", 8080)}
    play = Play()
    play.frames(talk((CLIENT, b"GET /x HTTP/1.0\r\n\r\n"), (SERVER, answer()), **ends))
    assert play.finish()[0]["request_url"] == "http://[fd00::2]:8080/x"


def test_the_clients_address_is_added_as_the_header_that_was_asked_for():
    (call,) = lines((CLIENT, get("/", "X-Real-IP: 1.2.3.4")), (SERVER, answer()), realip_header="X-Real-IP")
    assert [value for name, value in call if name == "request_header:x-real-ip"] == ["1.2.3.4", "10.0.0.1"]


def test_headers_that_are_not_utf8_are_read_as_latin1():
    (call,) = lines(
        (CLIENT, get("/").replace(b"\r\n\r\n", b"\r\nX-A: \xc4\r\nX-B: \xc3\x84\r\n\r\n")), (SERVER, answer())
    )
    fields = dict(call)
    assert (fields["request_header:x-a"], fields["request_header:x-b"]) == ("Ä", "Ä")


def test_what_is_not_text_is_left_out_and_counted():
    play = Play()
    play.frames(talk((CLIENT, get("/a")), (SERVER, answer(b"\x89PNG\0\1\2", content_type="image/png"))))
    assert "response_body" not in play.finish()[0]
    assert play.pipeline.builder.counters.bodies[1] == 1


def test_names_from_the_wire_are_remembered_to_a_bound_only():
    play = Play()
    for number in range(6):
        turns = [(CLIENT, get("/", *(f"X-{number}-{i}: v" for i in range(900)))), (SERVER, answer())]
        play.frames(talk(*turns, client=Endpoint("10.0.0.1", 1000 + number)))
    assert len(play.finish()) == 6
    assert len(play.pipeline.builder._request_names) <= 4096


TURNS = [(CLIENT, get("/a")), (SERVER, answer(b"1")), (CLIENT, get("/a")), (SERVER, answer(b"1"))]


def test_each_call_has_an_id_of_its_own():
    play = Play(call_ids=True).frames(talk(*TURNS))
    play.frames(talk(*TURNS, client=Endpoint("10.0.0.1", 40001)))
    play.frames(talk(*TURNS, client=Endpoint("fd00::1", 40001), server=Endpoint("fd00::2", 80)))
    play.wait(5).frames(talk(*TURNS, isns=(777, 5000)))  # the same endpoints again, as clients do with few ports
    play.finish()
    ids = ids_of(play)
    assert len(set(ids)) == len(ids) == 8
    assert all(len(i) == 32 and int(i, 16) >= 0 for i in ids)


def test_an_id_tells_nothing_of_connection_or_sequence():
    """Whoever has one line must not be able to try out clients, nor to tell which calls are of one."""
    play = Play(call_ids=True).frames(talk(*TURNS, isns=(0x01020304, 0x05060708)))
    play.finish()
    first, second = ids_of(play)
    assert not any(first[at : at + 8] == second[at : at + 8] for at in range(25))
    assert "01020305" not in first + second
    assert "05060709" not in first + second


@pytest.mark.parametrize("isns", [(1000, 5000), (2**32 - 3, 2**32 - 40)])
def test_two_captures_of_a_call_give_it_the_same_id(isns):
    frames = talk(*TURNS, isns=isns)
    first = Play(call_ids=True).frames(frames, vni=1)
    other_place_and_time = Play(call_ids=True)
    other_place_and_time.now_ns += 12_345_678_901
    other_place_and_time.frames(frames, vni=2, step_ns=7)
    without_handshake = Play(call_ids=True).frames(frames[3:])
    smaller_segments_out_of_order = Play(call_ids=True).frames(talk(*TURNS, isns=isns, mss=9)[::-1], step_ns=10)
    for play in (first, other_place_and_time, without_handshake, smaller_segments_out_of_order):
        play.finish()
        assert ids_of(play) == ids_of(first)
    assert len(ids_of(first)) == 2


def test_a_call_after_100_continue_has_the_id_of_its_final_response():
    head, _, body = post("/", b"granted", "Expect: 100-continue").partition(b"\r\n\r\n")
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    frames = talk((CLIENT, head + b"\r\n\r\n"), (SERVER, interim), (CLIENT, body), (SERVER, answer(b"ok")))
    without_interim = talk((CLIENT, head + b"\r\n\r\n"), (CLIENT, body), (SERVER, answer(b"ok")), isns=(1000, 5025))
    ids = []
    for one in (frames, without_interim):
        play = Play(call_ids=True).frames(one)
        play.finish()
        ids += ids_of(play)
    assert len(ids) == 2
    assert ids[0] == ids[1]
