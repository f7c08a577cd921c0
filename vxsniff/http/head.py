"""A message's head -> start line, headers and body framing (RFC 9112 sections 2 to 6), by llhttp.

llhttp is given whole heads only, and a new parser for each (0.15 us): so it needs no state between messages, can't be
led astray by a HEAD response or an upgrade, and every message boundary is a known sequence number, which its
callbacks do not tell. Heads that its strict mode refuses and servers in the field take are read a second time
leniently: obsolete line folding, bare LF, Transfer-Encoding beside Content-Length, methods that it does not know,
and raw bytes in the target.
"""

from __future__ import annotations

import contextlib
from typing import Final

import httptools

from vxsniff.http import sniff
from vxsniff.http.message import Header, Message

MAX_HEADERS: Final = 1000

BODY_NONE: Final = 0
BODY_LENGTH: Final = 1
BODY_CHUNKED: Final = 2
BODY_UNTIL_CLOSE: Final = 3


class Head:
    """What llhttp says of a head; collects its callbacks."""

    __slots__ = (
        "chunked",
        "content_length",
        "expects_continue",
        "headers",
        "is_complete",
        "target",
        "transfer_coded",
        "upgrade",
    )

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.target = b""
        self.content_length = -1
        self.transfer_coded = False
        self.chunked = False
        self.upgrade = False
        self.expects_continue = False
        self.is_complete = False

    def on_headers_complete(self) -> None:
        self.is_complete = True  # llhttp pauses behind it for upgrades, and calls that an error in one case of two

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        value = value.rstrip(b" \t")
        self.headers.append((name, value))
        size = len(name)
        # Only names of these lengths frame a message; the rest is not looked at.
        if size == 14:
            if name.lower() == b"content-length":
                self.content_length = int(value)
        elif size == 17:
            if name.lower() == b"transfer-encoding":
                self.transfer_coded = True
                self.chunked = value.lower().rpartition(b",")[2].strip() == b"chunked"
        elif size == 7:
            if name.lower() == b"upgrade":
                self.upgrade = True
        elif size == 6:
            if name.lower() == b"expect":
                self.expects_continue = value.lower() == b"100-continue"
        if len(self.headers) > MAX_HEADERS:
            raise ValueError("too many headers")


def parse_request(data: bytes, message: Message) -> Head | None:
    """Reads a request's head, up to and with its empty line, into `message`; None when it is no HTTP/1 request."""
    head = Head()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserUpgrade, httptools.HttpParserError):
        pass  # whether the head is complete tells
    if head.is_complete:
        message.method = parser.get_method()
        message.target = head.target
    else:
        line_end = data.find(b"\n")
        line = sniff.split_request_line(data[:line_end])
        if line is None:
            return None
        message.method, message.target = line
        head = Head()
        parser = httptools.HttpRequestParser(head)
        if not _feed_leniently(parser, head, b"GET / HTTP/1.1\r\n" + data[line_end + 1 :]):
            return None
    if not parser.get_http_version().startswith("1."):
        return None  # llhttp knows HTTP/0.9 and 2.0 as well
    message.headers = head.headers
    return head


def parse_response(data: bytes, message: Message) -> Head | None:
    """Reads a response's head, up to and with its empty line, into `message`; None when it is no HTTP/1 response."""
    head = Head()
    parser = httptools.HttpResponseParser(head)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserUpgrade, httptools.HttpParserError):
        pass  # whether the head is complete tells
    if not head.is_complete:
        if not sniff.is_status_line(data[: data.find(b"\n")]):
            return None
        head = Head()
        parser = httptools.HttpResponseParser(head)
        if not _feed_leniently(parser, head, data):
            return None
    message.status = parser.get_status_code()
    message.headers = head.headers
    return head


def _feed_leniently(
    parser: httptools.HttpRequestParser | httptools.HttpResponseParser, head: Head, data: bytes
) -> bool:
    parser.set_dangerous_leniencies(
        lenient_headers=True,
        lenient_chunked_length=True,
        lenient_keep_alive=True,
        lenient_transfer_encoding=True,
        lenient_version=True,
        lenient_optional_lf_after_cr=True,
        lenient_optional_cr_before_lf=True,
    )
    with contextlib.suppress(httptools.HttpParserUpgrade, httptools.HttpParserError):
        parser.feed_data(data)
    return head.is_complete


def request_framing(head: Head) -> int:
    """How the end of a request's body is known (RFC 9112 section 6.3); Transfer-Encoding overrides the length."""
    if head.transfer_coded:
        return BODY_CHUNKED if head.chunked else BODY_NONE
    return BODY_LENGTH if head.content_length > 0 else BODY_NONE


def response_framing(head: Head, status: int) -> int:
    """How the end of a response's body is known (RFC 9112 section 6.3), but for HEAD and CONNECT."""
    if status == 204 or status == 304 or status < 200:
        return BODY_NONE
    if head.transfer_coded:
        return BODY_CHUNKED if head.chunked else BODY_UNTIL_CLOSE
    if head.content_length >= 0:
        return BODY_LENGTH if head.content_length > 0 else BODY_NONE
    return BODY_UNTIL_CLOSE
