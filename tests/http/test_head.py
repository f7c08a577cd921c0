"""Heads through llhttp: what is read, and how the body's end is known."""

import pytest

from vxsniff.http import head as heads
from vxsniff.http.budget import Budget
from vxsniff.http.message import Message


def message():
    return Message(0, 0, 0, Budget(1000))


def request(data):
    m = message()
    return heads.parse_request(data, m), m


def response(data):
    m = message()
    return heads.parse_response(data, m), m


def test_a_request_is_read_with_its_headers_in_order():
    head, m = request(b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a:  2 \r\nX-Empty:\r\n\r\n")
    assert (m.method, m.target) == (b"POST", b"/a?b=c")
    assert m.headers == [(b"Host", b"x"), (b"X-A", b"1"), (b"x-a", b"2"), (b"X-Empty", b"")]
    assert heads.request_framing(head) == heads.BODY_NONE


def test_a_response_is_read():
    head, m = response(b"HTTP/1.0 404 Not Here\r\nContent-Length: 3\r\n\r\n")
    assert m.status == 404
    assert (heads.response_framing(head, 404), head.content_length) == (heads.BODY_LENGTH, 3)


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
    head, m = request(data)
    assert head is not None
    assert (m.method, m.target) == (method, target)


@pytest.mark.parametrize(
    "data", [b"GET /\r\n\r\n", b"\0\0\0\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
)
def test_what_is_no_request_is_refused(data):
    assert request(data)[0] is None


@pytest.mark.parametrize("data", [b"HTTP/1.1 abc\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_response_is_refused(data):
    assert response(data)[0] is None


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
    head, _ = response(b"HTTP/1.1 %d X\r\n%s\r\n" % (status, headers))
    assert heads.response_framing(head, status) == framing


def test_too_many_headers_are_no_head():
    many = b"".join(b"X-%d: y\r\n" % i for i in range(heads.MAX_HEADERS + 1))
    assert request(b"GET / HTTP/1.1\r\n" + many + b"\r\n")[0] is None
