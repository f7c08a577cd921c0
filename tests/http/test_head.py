"""Heads through llhttp: what is read, and how the body's end is known."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import CLIENT, SERVER, Conversation, Endpoint, Play, answer, get
from vxsniff.http import head as heads
from vxsniff.http.budget import Budget
from vxsniff.http.head import HeadReader
from vxsniff.http.message import Message
from vxsniff.http.stream import head_end


def message():
    return Message(0, 0, 0, Budget(1000))


def request(data):
    m = message()
    return m if HeadReader(True).read(data, m) else None


def response(data):
    m = message()
    return m if HeadReader(False).read(data, m) else None


def fields(m):
    return [(field.name, field.value) for field in m.headers.fields]


def test_a_request_is_read_with_its_headers_in_order():
    m = request(b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a:  2 \r\nX-Empty:\r\n\r\n")
    assert (m.method, m.target) == (b"POST", b"/a?b=c")
    assert fields(m) == [(b"Host", b"x"), (b"X-A", b"1"), (b"x-a", b"2"), (b"X-Empty", b"")]
    assert heads.request_framing(m.headers) == heads.BODY_NONE


def test_a_response_is_read():
    m = response(b"HTTP/1.0 404 Not Here\r\nContent-Length: 3\r\n\r\n")
    assert m.status == 404
    assert (heads.response_framing(m.headers, 404), m.headers.content_length) == (heads.BODY_LENGTH, 3)


@pytest.mark.parametrize(
    ("data", "method", "target"),
    [
        (b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", b"BREW", b"/pot"),
        (b"GET /\xc3\xa4?q=\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"GET", b"/\xc3\xa4?q=\xff"),
        (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", b"GET", b"/a b"),
        (b"GET / HTTP/1.1\nHost: x\n\n", b"GET", b"/"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Fold: a\r\n b\r\n\r\n", b"GET", b"/"),
        (b"CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\n", b"CONNECT", b"host:443"),
    ],
)
def test_what_servers_in_the_field_take_is_taken(data, method, target):
    m = request(data)
    assert (m.method, m.target) == (method, target)


@pytest.mark.parametrize(
    "data", [b"GET /\r\n\r\n", b"\0\0\0\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
)
def test_what_is_no_request_is_refused(data):
    assert request(data) is None


@pytest.mark.parametrize("data", [b"HTTP/1.1 abc\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_response_is_refused(data):
    assert response(data) is None


@pytest.mark.parametrize(
    ("headers", "status", "framing"),
    [
        (b"Content-Length: 5\r\n", 200, heads.BODY_LENGTH),
        (b"Content-Length: 0\r\n", 200, heads.BODY_NONE),
        (b"Transfer-Encoding: chunked\r\n", 200, heads.BODY_CHUNKED),
        (b"Transfer-Encoding: gzip, chunked\r\n", 200, heads.BODY_CHUNKED),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 200, heads.BODY_CHUNKED),
        (b"", 200, heads.BODY_UNTIL_CLOSE),
        (b"Content-Length: 5\r\n", 304, heads.BODY_NONE),
        (b"Content-Length: 5\r\n", 204, heads.BODY_NONE),
        (b"", 100, heads.BODY_NONE),
    ],
)
def test_the_end_of_a_response_is_known_as_the_rfc_says(headers, status, framing):
    m = response(b"HTTP/1.1 %d X\r\n%s\r\n" % (status, headers))
    assert heads.response_framing(m.headers, status) == framing


def test_too_many_headers_are_no_head():
    many = b"".join(b"X-%d: y\r\n" % i for i in range(heads.MAX_HEADERS + 1))
    assert request(b"GET / HTTP/1.1\r\n" + many + b"\r\n") is None


REQUEST_LINES = (
    *(b"GET / HTTP/1.1", b"POST /a?b=c HTTP/1.0", b"CONNECT host:443 HTTP/1.1", b"OPTIONS * HTTP/1.1"),
    *(b"GET http://h/x HTTP/1.1", b"BREW /pot HTTP/1.1", b"GET /a b HTTP/1.1", b"GET  / HTTP/1.1", b"get / HTTP/1.1"),
    *(
        b"GET / HTTP/1.1 ",
        b"GET / HTTP/2.0",
        b"GET / HTTP/1.2",
        b"GET /",
        b"GET /\xc3\xa4 HTTP/1.1",
        b"M-SEARCH * HTTP/1.1",
    ),
    *(
        b"GET /\tx HTTP/1.1",
        b"GET /\0 HTTP/1.1",
        b"GET /\n HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"SOURCE /x HTTP/1.1",
        b"GET x HTTP/1.1",
    ),
)
STATUS_LINES = (
    *(b"HTTP/1.1 200 OK", b"HTTP/1.0 404 Not Here", b"HTTP/1.1 204", b"HTTP/1.1 200 ", b"HTTP/1.1  200 OK"),
    *(b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000", b"HTTP/2.0 200 OK", b"HTTP/2 200"),
    *(
        b"HTTP/1.1 999 \xff",
        b"HTTP/1.1 000 X",
        b"HTTP/1.1 200 a\0b",
        b"ICY 200 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 200 a\nb",
    ),
)
LINES = (
    *(b"Host: x", b"host:y ", b"X-A:  1\t", b"X-A: 2", b"X-Empty:", b"Content-Type: text/plain", b"Cookie: a=b; c=d"),
    *(
        b"Content-Length: 5",
        b"Content-Length: 7",
        b"content-length:5",
        b"Content-Length: x",
        b"Content-Length:",
        b"Content-Length: 5, 5",
    ),
    *(b"Content-Length: +5", b"Content-Length: 99999999999999999999999", b"Content-Length: 5 5", b"Content-Length: 0"),
    *(
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip",
        b"transfer-encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, x",
    ),
    *(b"Connection: upgrade", b"Connection: close", b"Upgrade: websocket", b"Expect: 100-continue", b"Expect: other"),
    *(
        b" folded",
        b"\tfolded",
        b"X-B : 1",
        b"No colon",
        b": no name",
        b"X\0: 1",
        b"X-C: \0",
        b"X-C: a\rb",
        b"X-C: a\nX-D: b",
    ),
    *(
        b"X-E: a\n b",
        b"X-F: \xff",
        b"X-\xc3\xa4: 1",
        b"X-G: \x7f",
        b"X-H: \x01",
        b"\r",
        b"X-I: 1\r",
        b"X(Y): 1",
        b"Expect:100-CONTINUE",
    ),
)
FRAMING_LINES = tuple(line for line in LINES if b"ength" in line or b"ransfer" in line or line[:1] in b" \t")
HEADS = st.lists(
    st.tuples(
        st.one_of(st.just(0), st.integers(1, 30)),
        st.lists(st.one_of(st.sampled_from(LINES), st.sampled_from(FRAMING_LINES)), max_size=4),
    ),
    min_size=1,
    max_size=8,
)


def told(accepted, m):
    """All that a head says; nothing when it is none."""
    if not accepted:
        return None
    h = m.headers
    framing = (h.content_length, h.transfer_coded, h.chunked, h.upgrade, h.expects_continue)
    return m.method, m.target, m.status, fields(m), framing


@pytest.mark.parametrize("is_request", [True, False], ids=["requests", "responses"])
@pytest.mark.parametrize("is_warm", [True, False], ids=["known lines", "new lines"])
@given(heads_read=HEADS)
@settings(max_examples=300)
def test_a_head_of_lines_that_are_known_is_read_as_llhttp_reads_the_whole(is_request, is_warm, heads_read):
    first_lines = REQUEST_LINES if is_request else STATUS_LINES
    reader = HeadReader(is_request)
    for line in LINES if is_warm else ():
        reader.read(first_lines[0] + b"\r\n" + line + b"\r\n\r\n", message())
    for number, lines in heads_read * 3:  # twice they are new, or new as a whole
        data = b"\r\n".join((first_lines[number % len(first_lines)], *lines)) + b"\r\n\r\n"
        as_a_whole = message()
        whole = heads.read_request(data, as_a_whole) if is_request else heads.read_response(data, as_a_whole)
        m = message()
        assert told(reader.read(data, m), m) == told(whole, as_a_whole), data


def test_headers_that_recur_are_read_once():
    reader = HeadReader(True)
    read = []
    for number in range(3):
        read.append(message())
        assert reader.read(b"GET /%d HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n\r\n" % number, read[-1])
    assert read[1].headers is read[2].headers
    assert [m.target for m in read] == [b"/0", b"/1", b"/2"]
    other = message()
    assert reader.read(b"GET / HTTP/1.1\r\nX-A: 1\r\nHost: y\r\n\r\n", other)
    assert other.headers.fields[0] is read[0].headers.fields[1]


def kept_bytes(reader):
    assert reader._lines_bytes == sum(map(len, reader._lines))
    assert reader._blocks_bytes == sum(map(len, reader._blocks))
    return reader._lines_bytes, reader._blocks_bytes


def test_what_is_kept_of_heads_is_bounded_in_number():
    reader = HeadReader(False)
    for number in range(heads.MAX_LINES + 50):
        for _ in range(2):
            assert reader.read(b"HTTP/1.1 200 %d\r\nX-Id: %d\r\n\r\n" % (number, number), message())
        assert len(reader._lines) <= heads.MAX_LINES
        assert len(reader._blocks) <= heads.MAX_BLOCKS
        assert len(reader._seen) <= heads._MAX_SEEN
        assert len(reader._statuses) <= heads._MAX_STATUSES
    kept_bytes(reader)


def test_what_is_kept_of_heads_is_bounded_in_bytes():
    reader = HeadReader(False)
    for number in range(1200):
        head = b"HTTP/1.1 200 OK\r\nX-Id: %01000d\r\nX-Same: %01000d\r\n\r\n" % (number, 0)
        for _ in range(2):
            assert reader.read(head, message())
        assert max(kept_bytes(reader)) <= heads.MAX_KEPT_BYTES
    assert reader.read(b"HTTP/1.1 200 OK\r\nX-Id: %05000d\r\n\r\n" % 0, message())
    assert reader.read(b"HTTP/1.1 200 OK\r\nX-Id: %05000d\r\n\r\n" % 0, message())
    assert max(map(len, reader._lines)) <= heads.MAX_LINE_BYTES
    assert max(map(len, reader._blocks)) <= heads.MAX_BLOCK_BYTES


def test_a_connection_that_waits_holds_nothing_of_its_last_head():
    """Or many connections would hold more than any bound counts."""
    play = Play()
    conversation = Conversation(Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 80))
    play.frames(conversation.open())
    for _ in range(3):
        play.frames(conversation.send(CLIENT, get("/", "X-Unique: of this connection")))
        play.frames(conversation.send(SERVER, answer(b"x")))
    http = play.pipeline.http
    kept = [*http.request_heads._blocks.values(), *http.response_heads._blocks.values()]
    assert len(kept) == 2
    for reader in (http.request_heads, http.response_heads):
        reader._blocks.clear()
        reader._recent.clear()
        reader._lines.clear()
    while kept:
        headers = kept.pop()
        assert sys.getrefcount(headers) <= 2, "others than this test know it"


SOME_HEADS = [
    b"GET /%d HTTP/1.1\r\n" % number + b"".join(b"%s\r\n" % line for line in lines) + b"\r\n"
    for number, lines in enumerate(
        (
            *((), (b"A: 1",), (b"A: 1", b"B: 22"), (b"B: 22",), (b"A: 1", b"B: 22", b"C: 333")),
            *((b"Content-Length: 5",), (b"A: 1", b"Content-Length: 5"), (b"Long: " + b"x" * 300,), (b"A: 2",)),
        )
    )
]


@given(
    heads_read=st.lists(st.sampled_from(SOME_HEADS), min_size=1, max_size=12),
    behind=st.sampled_from((b"", b"x", b"body", b"\r\n", SOME_HEADS[2], SOME_HEADS[7])),
    before=st.sampled_from((b"", b"\r\n", b"before")),
    is_cut=st.booleans(),
)
@settings(max_examples=500)
def test_a_known_head_ends_where_a_look_for_its_end_finds_it(heads_read, behind, before, is_cut):
    """Whatever the block before was, and where the data stops: a shorter one may stand at its end."""
    reader = HeadReader(True)
    for data in SOME_HEADS * 2:
        assert reader.read(data, message())
    block_bytes = 0
    for head in heads_read:
        data = before + (head[:-3] if is_cut else head) + behind
        m = message()
        end = reader.read_known(data, len(before), block_bytes, m)
        if end:
            assert end == head_end(data, len(before)), (data, block_bytes)
            whole = message()
            assert reader.read(data[len(before) : end], whole)
            assert told(True, m) == told(True, whole)
        assert all(len(headers.block) == size for size, headers in reader._recent.items())
        reader.read(head, m)
        block_bytes = len(m.headers.block)


def test_a_head_alone_in_its_segment_after_a_longer_one_takes_nothing_of_what_follows():
    long = b"HTTP/1.1 200 OK\r\nServer: of some length\r\nContent-Length: 2\r\n\r\n"
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"
    body = b"0123456789" * 4
    play = Play()
    for number in range(6):
        conversation = Conversation(Endpoint("10.0.0.1", 40000 + number), Endpoint("10.0.0.2", 80))
        play.frames(conversation.open())
        for answers in ((long + b"ok",), (short, body) if number % 2 else (short + body,), (long + b"ok",)):
            play.frames(conversation.send(CLIENT, get("/")))
            for data in answers:
                play.frames(conversation.send(SERVER, data))
    play.finish()
    assert [call.get("response_body") for call in play.calls] == ["ok", body.decode(), "ok"] * 6


@pytest.mark.parametrize("length", [b"0" * 5000 + b"5", b"9" * 5000, b"9" * 20])
def test_a_length_of_very_many_digits_raises_nothing(length):
    for reader in (HeadReader(True), HeadReader(False)):
        first = b"GET / HTTP/1.1" if reader._is_request else b"HTTP/1.1 200 OK"
        m = message()
        read = reader.read(first + b"\r\nContent-Length: " + length + b"\r\n\r\n", m)
        assert not read or m.headers.content_length == 5


def test_trailers_frame_nothing():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    play = Play()
    conversation = Conversation(Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 80))
    play.frames(conversation.open())
    for length in (b"9" * 5000, b"-1", b"7"):
        play.frames(conversation.send(CLIENT, get("/")))
        play.frames(conversation.send(SERVER, chunked + b"Content-Length: " + length + b"\r\n\r\n"))
    assert [call["response_body"] for call in play.finish()] == ["hello"] * 3


def test_headers_of_very_many_fields_are_not_kept_as_a_block():
    """What is noted of each field is more than the field: the bound in bytes would not be one."""
    reader = HeadReader(True)
    many = b"".join(b"X-%d: y\r\n" % number for number in range(heads.MAX_BLOCK_FIELDS + 1))
    for _ in range(3):
        assert reader.read(b"GET / HTTP/1.1\r\n" + many + b"\r\n", message())
    assert not reader._blocks
