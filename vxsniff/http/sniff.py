"""What do the first bytes of a direction say it speaks?

HTTP/1 begins with a method and a target, or with `HTTP/1.` (RFC 9112 sections 3 and 4); TLS with a record header
(RFC 8446 section 5.1); HTTP/2 with its preface (RFC 9113 section 3.4). Anything else is not ours.
"""

from __future__ import annotations

import re
from typing import Final

NEED_MORE: Final = 0
REQUEST: Final = 1
RESPONSE: Final = 2
TLS: Final = 3
HTTP2: Final = 4
OTHER: Final = 5

MAX_FIRST_LINE_BYTES: Final = 65_536

_PREFACE: Final = b"PRI * HTTP/2.0"
_VERSION: Final = b"HTTP/1."
# A token (RFC 9110 section 5.6.2) as method, a target, a version; the target may hold raw bytes that it should not.
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) +([^ \r\n][^\r\n]*?) +HTTP/1\.[0-9] *\r?\Z")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] +[0-9]{3}(?: |\r?\Z)")
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64} ")
_METHOD_BEGUN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,64}\Z")
# Where a message may begin in the middle of a connection only well-known methods count (the IANA registry's and
# those in wide use): the price of a false start is a wrong message.
KNOWN_METHODS: Final = frozenset(
    b"GET POST PUT HEAD DELETE PATCH OPTIONS CONNECT TRACE QUERY PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK "
    b"SEARCH REPORT MERGE CHECKOUT MKACTIVITY SUBSCRIBE UNSUBSCRIBE NOTIFY PURGE LINK UNLINK BIND REBIND UNBIND ACL "
    b"MKCALENDAR SOURCE".split()
)
_KNOWN_METHOD: Final = re.compile(b"(?:" + b"|".join(sorted(KNOWN_METHODS)) + b") ")


def classify(data: bytes) -> int:
    """What a direction speaks, by its first bytes (line breaks before them skipped by the caller)."""
    if not data:
        return NEED_MORE
    first = data[0]
    if 0x14 <= first <= 0x17:
        if len(data) < 3:
            return NEED_MORE
        return TLS if data[1] == 3 and data[2] <= 4 else OTHER
    if data.startswith(_VERSION):
        return RESPONSE
    if _VERSION.startswith(data[: len(_VERSION)]):
        return NEED_MORE  # `H`: a HEAD request is as possible
    if data.startswith(_PREFACE):
        return HTTP2
    if _METHOD.match(data) is None:
        return NEED_MORE if _METHOD_BEGUN.match(data) else OTHER
    if len(data) < len(_PREFACE) and _PREFACE.startswith(data):
        return NEED_MORE
    line_end = data.find(b"\n")
    if line_end < 0:
        if _KNOWN_METHOD.match(data):
            return REQUEST
        return NEED_MORE if len(data) < MAX_FIRST_LINE_BYTES else OTHER
    return REQUEST if _REQUEST_LINE.match(data[:line_end]) else OTHER


def looks_like_start(data: bytes) -> bool:
    """Whether bytes from the middle of a connection may be the start of a message (or of TLS, or of HTTP/2)."""
    if data.startswith(_VERSION):
        return True
    if len(data) >= 5 and 0x16 <= data[0] <= 0x17 and data[1] == 3 and data[2] <= 4 and data[3] <= 0x48:
        return True
    if _KNOWN_METHOD.match(data) is None:
        return data.startswith(_PREFACE)
    line_end = data.find(b"\n")
    return line_end < 0 or _REQUEST_LINE.match(data[:line_end]) is not None


def split_request_line(line: bytes) -> tuple[bytes, bytes] | None:
    """Method and target of an HTTP/1 request line without its line break; None when it is none."""
    match = _REQUEST_LINE.match(line)
    return None if match is None else (match[1], match[2])


def is_status_line(line: bytes) -> bool:
    return _STATUS_LINE.match(line) is not None
