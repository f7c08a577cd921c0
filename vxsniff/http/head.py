"""A message's head -> start line, headers and body framing (RFC 9112 sections 2 to 6), by llhttp.

Heads recur: most lines of a head were there before, and often all but the first. So llhttp reads each line once. A
block of lines that is known needs one look-up; of one that is not, llhttp is given the lines that are not known, as a
head of their own. That the parts are good says that the whole is, but where several fields speak of the body's length,
where a line goes on in the next, or where lines end otherwise than with CRLF: then, and where llhttp finds fault, it
reads the whole. Heads that its strict mode refuses and servers in the field take are read once more leniently: obsolete
line folding, bare LF, Transfer-Encoding beside Content-Length, methods that it does not know, and raw bytes in the
target.

llhttp is given whole heads only, and a new parser for each: so it needs no state between messages, can't be led astray
by a HEAD response or an upgrade, and every message boundary is a known sequence number, which its callbacks don't tell.

Bounds of what is kept, for each direction: MAX_LINES and MAX_BLOCKS of at most MAX_LINE_BYTES and MAX_BLOCK_BYTES, and
MAX_KEPT_BYTES of either; what would pass them begins anew.
"""

from __future__ import annotations

from typing import Final

import httptools

from vxsniff.http import sniff
from vxsniff.http.headers import Header, Headers
from vxsniff.http.message import Message

MAX_HEADERS: Final = 1000
MAX_LINES: Final = 4096
MAX_LINE_BYTES: Final = 1024
MAX_BLOCKS: Final = 512
MAX_BLOCK_BYTES: Final = 4096
MAX_BLOCK_FIELDS: Final = 64
MAX_KEPT_BYTES: Final = 524_288
_MAX_PLAIN_LINE_BYTES: Final = 8192
_MAX_STATUSES: Final = 256
_MAX_STATUS_BYTES: Final = 256
_MAX_SEEN: Final = 4096

BODY_NONE: Final = 0
BODY_LENGTH: Final = 1
BODY_CHUNKED: Final = 2
BODY_UNTIL_CLOSE: Final = 3

_SPACE: Final = 32
_TAB: Final = 9
_COLON: Final = 58


class HeadReader:
    """Reads the heads of one direction, and keeps what is likely to come again."""

    def __init__(self, is_request: bool) -> None:
        self._is_request = is_request
        self._lines: dict[bytes, Header] = {}
        self._lines_bytes = 0
        self._blocks: dict[bytes, Headers] = {}
        self._blocks_bytes = 0
        self._recent: dict[int, Headers] = {}  # the block of each length that came last
        self._seen: set[int] = set()  # hashes of blocks that came once: a second time they are worth keeping
        self._statuses: dict[bytes, int] = {}

    def forget(self) -> None:
        """Begins anew: what was noted of headers is of no use any more."""
        self._forget_lines()
        self._forget_blocks()

    def _forget_lines(self) -> None:
        self._lines.clear()
        self._lines_bytes = 0

    def _forget_blocks(self) -> None:
        self._blocks.clear()
        self._recent.clear()
        self._blocks_bytes = 0

    def read(self, data: bytes, message: Message) -> bool:
        """Reads a head, up to and with its empty line, into `message`; False when it is none."""
        line_end = data.find(b"\r\n")
        if line_end > 0:
            line = data[:line_end]
            if _request_line(line, message) if self._is_request else self._status_line(line, message):
                headers = self._headers(data[line_end + 2 :])
                if headers is not None:
                    message.headers = headers
                    return True
        return read_request(data, message) if self._is_request else read_response(data, message)

    def read_known(self, data: bytes, pos: int, block_bytes: int, message: Message) -> int:
        """Reads the head at `pos` if its first line is plain (and at most _MAX_PLAIN_LINE_BYTES long) and a known block
        of that length follows: then its end is known without a look for it. Where that is; 0, and nothing is said of
        the head, otherwise.
        """
        # Not `find`: `partition` costs less to ask, though it copies what follows; so it is given no more than needed.
        most = block_bytes + _MAX_PLAIN_LINE_BYTES
        line, _, rest = (data if pos == 0 and len(data) <= most else data[pos : pos + most]).partition(b"\r\n")
        headers = self._recent.get(block_bytes)  # most likely it is the same, and need not be cut out and hashed
        if headers is None or not rest.startswith(headers.block):
            headers = self._blocks.get(rest[:block_bytes])
            if headers is None or len(headers.block) != block_bytes:
                return 0  # what is here may be a shorter block, at the data's end
            self._recent[block_bytes] = headers
        if not (_request_line(line, message) if self._is_request else self._status_line(line, message)):
            return 0
        message.headers = headers
        return pos + len(line) + 2 + block_bytes

    def _status_line(self, line: bytes, message: Message) -> bool:
        """Whether llhttp takes it; there are few different ones."""
        status = self._statuses.get(line, 0)
        if status == 0:
            if line.find(b"\n") >= 0:
                return False
            collected = _Collected()
            parser = httptools.HttpResponseParser(collected)
            _feed(parser, line + b"\r\n\r\n")
            if not collected.is_complete:
                return False
            status = parser.get_status_code()
            if len(line) <= _MAX_STATUS_BYTES:
                if len(self._statuses) >= _MAX_STATUSES:
                    self._statuses.clear()
                self._statuses[line] = status
        message.status = status
        return True

    def _headers(self, block: bytes) -> Headers | None:
        """From the first field to the empty line; None when they must be read as a whole."""
        known = self._blocks.get(block)
        if known is not None:
            return known
        lines: list[bytes] = []
        if block != b"\r\n":
            if not block.endswith(b"\r\n\r\n"):
                return None
            lines = block[:-4].split(b"\r\n")
        if len(lines) > MAX_HEADERS:
            return None
        known_fields = [self._lines.get(line) for line in lines]
        unknown = [line for line, field in zip(lines, known_fields, strict=True) if field is None]
        read = self._read_lines(unknown) if unknown else []
        if read is None:
            return None
        fresh = iter(read)
        fields = [field if field is not None else next(fresh) for field in known_fields]
        headers = Headers(fields)
        if headers.is_contested or not headers.is_valid:
            return None
        for line, field in zip(unknown, read, strict=True):
            self._keep_line(line, field)
        self._keep_block(block, headers)
        return headers

    def _read_lines(self, lines: list[bytes]) -> list[Header] | None:
        """Fields that were not read before; None when llhttp does not take each line for one."""
        for line in lines:
            if line[0] == _SPACE or line[0] == _TAB:
                return None  # goes on with the line before it
        collected = _Collected()
        if self._is_request:
            _feed(httptools.HttpRequestParser(collected), b"GET / HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
        else:
            _feed(httptools.HttpResponseParser(collected), b"HTTP/1.1 200 \r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
        fields = collected.fields
        if not collected.is_complete or len(fields) != len(lines):
            return None
        for line, field in zip(lines, fields, strict=True):
            size = len(field.name)
            if len(line) <= size or line[size] != _COLON or not line.startswith(field.name):
                return None
        return fields

    def _keep_line(self, line: bytes, field: Header) -> None:
        if len(line) > MAX_LINE_BYTES:
            return
        if len(self._lines) >= MAX_LINES or self._lines_bytes + len(line) > MAX_KEPT_BYTES:
            self._forget_lines()
        self._lines[line] = field
        self._lines_bytes += len(line)

    def _keep_block(self, block: bytes, headers: Headers) -> None:
        if len(block) > MAX_BLOCK_BYTES or len(headers.fields) > MAX_BLOCK_FIELDS:
            return
        mark = hash(block)
        if mark not in self._seen:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        if len(self._blocks) >= MAX_BLOCKS or self._blocks_bytes + len(block) > MAX_KEPT_BYTES:
            self._forget_blocks()
        self._blocks[block] = headers
        headers.block = block
        self._blocks_bytes += len(block)


def _request_line(line: bytes, message: Message) -> bool:
    """A plain request line: what needs more than two single spaces to see it is left to who reads the whole."""
    parts = line.split()  # at line breaks, too
    if len(parts) != 3:
        return False
    method, target, version = parts
    if version != b"HTTP/1.1" and version != b"HTTP/1.0":
        return False
    between = len(method)
    if line[between] != _SPACE or line[-9] != _SPACE or len(line) != between + len(target) + 10:
        return False
    if method not in sniff.KNOWN_METHODS:
        return False
    message.method = method
    message.target = target
    return True


# ---- by llhttp, as a whole


class _Collected:
    """What llhttp says of a head; its callbacks."""

    __slots__ = ("fields", "is_complete", "target")

    def __init__(self) -> None:
        self.fields: list[Header] = []
        self.target = b""
        self.is_complete = False

    def on_headers_complete(self) -> None:
        self.is_complete = True  # llhttp pauses behind it for upgrades, and calls that an error in one case of two

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append(Header(name, value))
        if len(self.fields) > MAX_HEADERS:
            raise ValueError("too many headers")


def _feed(parser: httptools.HttpRequestParser | httptools.HttpResponseParser, data: bytes) -> None:
    """Whether it got to the end of the head is for its callbacks to say."""
    try:
        parser.feed_data(data)
    except (httptools.HttpParserUpgrade, httptools.HttpParserError):
        pass


def read_request(data: bytes, message: Message) -> bool:
    """Reads a request's head, up to and with its empty line, into `message`; False when it is no HTTP/1 request."""
    collected = _Collected()
    parser = httptools.HttpRequestParser(collected)
    _feed(parser, data)
    if collected.is_complete:
        message.method = parser.get_method()
        message.target = collected.target
    else:
        line_end = data.find(b"\n")
        line = sniff.split_request_line(data[:line_end])
        if line is None:
            return False
        message.method, message.target = line
        collected = _Collected()
        parser = httptools.HttpRequestParser(collected)
        _feed_leniently(parser, b"GET / HTTP/1.1\r\n" + data[line_end + 1 :])
    if not parser.get_http_version().startswith("1."):
        return False  # llhttp knows HTTP/0.9 and 2.0 as well
    return _take_headers(collected, message)


def read_response(data: bytes, message: Message) -> bool:
    """Reads a response's head, up to and with its empty line, into `message`; False when it is no HTTP/1 response."""
    collected = _Collected()
    parser = httptools.HttpResponseParser(collected)
    _feed(parser, data)
    if not collected.is_complete:
        if not sniff.is_status_line(data[: data.find(b"\n")]):
            return False
        collected = _Collected()
        parser = httptools.HttpResponseParser(collected)
        _feed_leniently(parser, data)
    message.status = parser.get_status_code()
    return _take_headers(collected, message)


def _feed_leniently(parser: httptools.HttpRequestParser | httptools.HttpResponseParser, data: bytes) -> None:
    parser.set_dangerous_leniencies(
        lenient_headers=True,
        lenient_chunked_length=True,
        lenient_keep_alive=True,
        lenient_transfer_encoding=True,
        lenient_version=True,
        lenient_optional_lf_after_cr=True,
        lenient_optional_cr_before_lf=True,
    )
    _feed(parser, data)


def _take_headers(collected: _Collected, message: Message) -> bool:
    message.headers = Headers(collected.fields)
    return collected.is_complete and message.headers.is_valid


def request_framing(headers: Headers) -> int:
    """How the end of a request's body is known (RFC 9112 section 6.3); Transfer-Encoding overrides the length."""
    if headers.transfer_coded:
        return BODY_CHUNKED if headers.chunked else BODY_NONE
    return BODY_LENGTH if headers.content_length > 0 else BODY_NONE


def response_framing(headers: Headers, status: int) -> int:
    """How the end of a response's body is known (RFC 9112 section 6.3), but for HEAD and CONNECT."""
    if status == 204 or status == 304 or status < 200:
        return BODY_NONE
    if headers.transfer_coded:
        return BODY_CHUNKED if headers.chunked else BODY_UNTIL_CLOSE
    if headers.content_length >= 0:
        return BODY_LENGTH if headers.content_length > 0 else BODY_NONE
    return BODY_UNTIL_CLOSE
