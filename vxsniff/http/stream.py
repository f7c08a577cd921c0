"""One direction of an HTTP/1 connection: bytes and gaps in order -> messages, each boundary at its sequence number.

    START -> HEAD -> LENGTH | CHUNKED | UNTIL_CLOSE -> START      TUNNEL: no HTTP any more
      ^                          | a gap that hides a boundary, or a head that is none
      +------- SEARCH <----------+ skips to a segment that looks like a start

A gap inside a body of known length, or inside a chunk, costs that body's bytes only; in a body that ends with the
connection likewise. Any other gap ends the message there and starts a search.

A response waits at its head until its request is known (`blocked`): whether a body follows depends on the method. A
request direction waits behind an upgrade until the answer says whether it is still HTTP. What arrives meanwhile is
kept in `backlog`, charged to the budget; when that refuses, or MAX_BACKLOG_BYTES are passed, the wait is over.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from mypy_extensions import trait

from vxsniff.flow.seq import add
from vxsniff.http import head as heads
from vxsniff.http import sniff
from vxsniff.http.budget import Budget
from vxsniff.http.chunked import ChunkedDecoder
from vxsniff.http.head import HeadReader
from vxsniff.http.message import Message

MAX_HEAD_BYTES: Final = 131_072
MAX_BACKLOG_BYTES: Final = 1_048_576
DEFERRED_OVERHEAD_BYTES: Final = 250
"""What a deferred piece costs besides its bytes."""

START: Final = 0
HEAD: Final = 1
LENGTH: Final = 2
CHUNKED: Final = 3
UNTIL_CLOSE: Final = 4
SEARCH: Final = 5
TUNNEL: Final = 6

_DATA: Final = 0
_GAP: Final = 1
_CUT: Final = 2
_END: Final = 3

# What the owner answers to a head.
READ_BODY: Final = 0
NO_BODY: Final = 1
BLOCK: Final = 2
LEAVE_HTTP: Final = 3
FORCED: Final = 4  # read the body, but the request is not known


@trait
class Owner:
    """What a stream tells its connection."""

    __slots__ = ()

    def head(self, is_request: bool, message: Message, forced: bool) -> int:
        """A head was read; answers one of the constants above. After BLOCK it is asked again."""
        raise NotImplementedError

    def complete(self, is_request: bool, message: Message) -> None:
        """The message is whole (or as whole as it will be)."""
        raise NotImplementedError

    def boundary_lost(self, is_request: bool, message: Message | None) -> None:
        """Whole messages may have been lost here; `message` is the one that was being read."""
        raise NotImplementedError

    def invalid(self, first: bool) -> None:
        """What should be a head is none; `first` when nothing on this stream was HTTP so far."""
        raise NotImplementedError


class _Nobody(Owner):
    """The owner of streams that are over."""

    __slots__ = ()


_NOBODY: Final = _Nobody()


class MessageStream:
    """See the module's docstring. `blocked` streams keep what they are given until `resume`.

    `start_may_follow`: the owner holds it possible that the next bytes begin a message, where a body or something
    else than HTTP was announced; they do if they look like it.
    """

    __slots__ = (
        "_backlog_bytes",
        "_block_bytes",
        "_body_limit_bytes",
        "_budget",
        "_buffer",
        "_chunks",
        "_head_waits",
        "_heads",
        "_is_request",
        "_line_checked",
        "_owner",
        "_remaining",
        "_seen_messages",
        "_state",
        "backlog",
        "blocked",
        "message",
        "skipped_bytes",
        "start_may_follow",
    )

    def __init__(
        self, is_request: bool, owner: Owner, reader: HeadReader, budget: Budget, body_limit_bytes: int
    ) -> None:
        # Small things stand together: compiled, they then share a word.
        self._is_request = is_request
        self.blocked = False
        self.start_may_follow = False
        self._head_waits = False  # it was read, and its owner does not know yet what follows it
        self._line_checked = False
        self._state = START
        self.message: Message | None = None
        self._remaining = 0
        self._buffer: bytearray | None = None  # of a head that came in parts
        self._chunks: ChunkedDecoder | None = None
        self._block_bytes = 0  # of the last headers that were known: the next are likely to be the same
        self._seen_messages = 0
        self._owner = owner
        self._heads = reader
        self._budget = budget
        self._body_limit_bytes = body_limit_bytes
        self.backlog: deque[tuple[int, int, int, int, bytes]] | None = None  # few streams ever need one
        self._backlog_bytes = 0
        self.skipped_bytes = 0

    # ---- what comes in

    def data(self, seq: int, ack: int, ts_ns: int, data: bytes) -> None:
        """The next bytes."""
        if self.blocked:
            if self.start_may_follow and not self.backlog and sniff.looks_like_start(data):
                self.blocked = False  # the upgrade was not taken: HTTP goes on
                self.start_may_follow = False
            else:
                self._defer(_DATA, seq, ack, ts_ns, data)
                return
        pos = 0
        size = len(data)
        while pos < size:
            if self.blocked:
                self._defer(_DATA, add(seq, pos), ack, ts_ns, data[pos:])
                return
            state = self._state
            if state == LENGTH:
                pos = self._length(seq, ts_ns, data, pos)
            elif state == HEAD:
                pos = self._read_head(seq, ts_ns, data, pos)
            elif state == START:
                pos = self._start(seq, ack, ts_ns, data, pos)
            elif state == CHUNKED:
                pos = self._chunked(seq, ts_ns, data, pos)
            elif state == UNTIL_CLOSE:
                pos = self._until_close(seq, ts_ns, data, pos)
            elif state == SEARCH:
                if pos == 0 and sniff.looks_like_start(data):
                    self._state = START
                else:
                    self.skipped_bytes += size - pos
                    return
            else:
                return

    def gap(self, missing: int, cut: bool, ts_ns: int) -> None:
        """The next `missing` bytes will never come."""
        if self.blocked:
            self._defer(_CUT if cut else _GAP, missing, 0, ts_ns, b"")
            return
        message = self.message
        if message is not None and self._state == LENGTH:
            inside = min(missing, self._remaining)
            message.lose_body(inside, cut)
            message.end_seq = add(message.end_seq, inside)
            self._remaining -= inside
            missing -= inside
            if self._remaining == 0:
                self._complete(message.end_seq, ts_ns)
        elif message is not None and self._state == CHUNKED and self._chunks is not None:
            if missing <= self._chunks.skippable_bytes:
                message.lose_body(missing, cut)
                self._chunks.skip(missing)
                return
            message.lose_body(missing, cut)
            self._lose_boundary()
            return
        elif message is not None and self._state == UNTIL_CLOSE:
            message.lose_body(missing, cut)
            return
        if missing and self._state != TUNNEL:
            self._lose_boundary()

    def end(self, ts_ns: int) -> None:
        """The direction is over: a body that ends with the connection is whole; any other message is what it is."""
        if self.blocked:
            self._defer(_END, 0, 0, ts_ns, b"")
            return
        message = self.message
        if message is None:
            return
        if self._state == UNTIL_CLOSE or self._may_be_bodiless(message):
            self._complete(message.end_seq, message.end_ns)
        elif self._state == LENGTH:
            message.lose_body(self._remaining, True)
            self._complete(message.end_seq, message.end_ns)
        elif self._state == CHUNKED:
            message.lose_body(1, True)  # how much is missing was never said
            self._complete(message.end_seq, message.end_ns)
        else:
            self.skipped_bytes += len(self._buffer or b"")  # a head that stopped in the middle
            self._drop_buffer()
            self.message = None

    def resume(self, forced: bool) -> None:
        """What it waited for is known, or (`forced`) will not come."""
        self.blocked = False
        self.start_may_follow = False
        if self._head_waits and self.message is not None:
            self._begin_body(self.message, forced)
        while self.backlog and not self.blocked:
            kind, seq, ack, ts_ns, data = self.backlog.popleft()
            self._backlog_bytes -= len(data) + DEFERRED_OVERHEAD_BYTES
            self._budget.release(len(data) + DEFERRED_OVERHEAD_BYTES)
            if kind == _DATA:
                waiting = len(self.backlog)
                self.data(seq, ack, ts_ns, data)
                if self.blocked and len(self.backlog) > waiting:
                    self.backlog.rotate(1)  # what it deferred again comes first
            elif kind == _END:
                self.end(ts_ns)
            else:
                self.gap(seq, kind == _CUT, ts_ns)

    def leave_http(self) -> None:
        """From here on this direction speaks something else."""
        self._state = TUNNEL
        self.blocked = False
        self.drop()

    def drop(self) -> None:
        """Lets go of everything that is held."""
        self._drop_buffer()
        self.backlog = None
        self._budget.release(self._backlog_bytes)
        self._backlog_bytes = 0
        self._head_waits = False
        if self.message is not None:
            self.message.release()
            self.message = None

    def part(self) -> None:
        """The connection is over, and nothing follows. A stream and its owner would keep each other in memory until the
        garbage collector looks at what is old, which is seldom (vxsniff.app.memory).
        """
        self._owner = _NOBODY

    # ---- the states

    def _start(self, seq: int, ack: int, ts_ns: int, data: bytes, pos: int) -> int:
        size = len(data)
        while pos < size and (data[pos] == 13 or data[pos] == 10):
            pos += 1  # empty lines before a start line are no part of it (RFC 9112 section 2.2)
        if pos < size:
            self.message = Message(add(seq, pos), ack, ts_ns, self._budget)
            self._state = HEAD
            self._line_checked = False
        return pos

    def _read_head(self, seq: int, ts_ns: int, data: bytes, pos: int) -> int:
        buffer = self._buffer
        if buffer is None:
            end = self._read_known_head(seq, ts_ns, data, pos) if self._block_bytes else 0
            if end > 0:
                return end
            end = head_end(data, pos)
            if end > 0:
                self._parse_head(data[pos:end] if pos or end != len(data) else data, add(seq, end), ts_ns)
                return end
            buffer = self._buffer = bytearray()
        old = len(buffer)
        rest = data[pos:] if pos else data
        if not self._budget.charge(len(rest)):
            self._fail()
            return len(data)
        buffer += rest
        if old:
            end = head_end(buffer, 0, max(0, old - 3))
            if end > 0:
                whole = bytes(buffer[:end])
                self._drop_buffer()
                pos += end - old
                self._parse_head(whole, add(seq, pos), ts_ns)
                return pos
        if len(buffer) > MAX_HEAD_BYTES or not self._first_line_fits():
            self._fail()
        return len(data)

    def _read_known_head(self, seq: int, ts_ns: int, data: bytes, pos: int) -> int:
        message = self.message
        assert message is not None
        end = self._heads.read_known(data, pos, self._block_bytes, message)
        if end > 0:
            self._head_was_read(message, end - pos, add(seq, end), ts_ns)
        return end

    def _first_line_fits(self) -> bool:
        """Looks once, as soon as it is here, whether the first line is a start line at all."""
        buffer = self._buffer
        if self._line_checked or buffer is None:
            return True
        line_end = buffer.find(b"\n")
        if line_end < 0:
            return len(buffer) <= sniff.MAX_FIRST_LINE_BYTES
        self._line_checked = True
        line = bytes(buffer[:line_end])
        return sniff.split_request_line(line) is not None if self._is_request else sniff.is_status_line(line)

    def _parse_head(self, data: bytes, end_seq: int, ts_ns: int) -> None:
        message = self.message
        assert message is not None
        if not self._heads.read(data, message):
            self._fail()
            return
        self._head_was_read(message, len(data), end_seq, ts_ns)

    def _head_was_read(self, message: Message, size: int, end_seq: int, ts_ns: int) -> None:
        if not message.charge_head(size):
            self._fail()
            return
        self._block_bytes = len(message.headers.block)
        self._seen_messages += 1
        message.end_seq = end_seq
        message.end_ns = ts_ns
        self._begin_body(message, False)

    def _begin_body(self, message: Message, forced: bool) -> None:
        answer = self._owner.head(self._is_request, message, forced)
        if answer == BLOCK:
            self._head_waits = True
            self.blocked = True
            return
        self._head_waits = False
        if answer == LEAVE_HTTP:
            self._complete(message.end_seq, message.end_ns)
            self.leave_http()
            return
        if answer == NO_BODY:
            framing = heads.BODY_NONE
        elif self._is_request:
            framing = heads.request_framing(message.headers)
        else:
            framing = heads.response_framing(message.headers, message.status)
            self.start_may_follow = answer == FORCED
        if framing == heads.BODY_NONE:
            self._complete(message.end_seq, message.end_ns)
        elif framing == heads.BODY_LENGTH:
            self._remaining = message.headers.content_length
            self._state = LENGTH
        elif framing == heads.BODY_CHUNKED:
            self._chunks = ChunkedDecoder(message, self._body_limit_bytes)
            self._state = CHUNKED
        else:
            self._state = UNTIL_CLOSE

    def _length(self, seq: int, ts_ns: int, data: bytes, pos: int) -> int:
        message = self.message
        assert message is not None
        if self.start_may_follow and self._body_was_refused(message, data, pos):
            return pos
        size = len(data)
        take = min(self._remaining, size - pos)
        message.add_body(data if take == size else data[pos : pos + take], self._body_limit_bytes)
        self._remaining -= take
        pos += take
        message.end_seq = add(seq, pos)
        message.end_ns = ts_ns
        if self._remaining == 0:
            self._complete(message.end_seq, ts_ns)
        return pos

    def _chunked(self, seq: int, ts_ns: int, data: bytes, pos: int) -> int:
        message, chunks = self.message, self._chunks
        assert message is not None
        assert chunks is not None
        if self.start_may_follow and self._body_was_refused(message, data, pos):
            return pos
        pos = chunks.feed(data, pos)
        message.end_seq = add(seq, pos)
        message.end_ns = ts_ns
        if chunks.done:
            message.add_trailers(chunks.trailers)
            self._complete(message.end_seq, ts_ns)
        elif chunks.failed:
            message.lose_body(1, True)
            self._complete(message.end_seq, ts_ns)
            self._owner.invalid(False)
            self._lose_boundary()
            self.skipped_bytes += len(data) - pos
            return len(data)
        return pos

    def _until_close(self, seq: int, ts_ns: int, data: bytes, pos: int) -> int:
        message = self.message
        assert message is not None
        if self.start_may_follow and self._body_was_refused(message, data, pos):
            return pos
        message.add_body(data[pos:] if pos else data, self._body_limit_bytes)
        message.end_seq = add(seq, len(data))
        message.end_ns = ts_ns
        return len(data)

    def _body_was_refused(self, message: Message, data: bytes, pos: int) -> bool:
        """Whether the next message begins where a body was announced.

        A request with `Expect: 100-continue` that got its final answer needs no body (RFC 9110 section 10.1.1), and
        a response whose request is not known may have answered HEAD.
        """
        if pos or not self._may_be_bodiless(message) or not sniff.looks_like_start(data):
            return False
        self._complete(message.end_seq, message.end_ns)
        return True

    def _may_be_bodiless(self, message: Message) -> bool:
        return (
            self.start_may_follow
            and self._state in (LENGTH, CHUNKED, UNTIL_CLOSE)
            and not message.wire_body_bytes
            and not message.is_damaged
        )

    # ---- the ends

    def _complete(self, end_seq: int, end_ns: int) -> None:
        message = self.message
        assert message is not None
        message.end_seq = end_seq
        message.end_ns = end_ns
        message.complete = True
        self.message = None
        self._head_waits = False
        self._chunks = None
        self.start_may_follow = False
        self._state = START
        self._owner.complete(self._is_request, message)

    def _lose_boundary(self) -> None:
        """Whole messages may be missing; what was being read ends here."""
        message = self.message
        self._drop_buffer()
        self.message = None
        self._head_waits = False
        self._chunks = None
        self.start_may_follow = False
        self._state = SEARCH
        self._owner.boundary_lost(self._is_request, message)

    def _fail(self) -> None:
        # A start line that was one makes it HTTP, however the head went on.
        first = self._seen_messages == 0 and not self._line_checked
        self.message = None
        self._drop_buffer()
        self._state = SEARCH
        self._owner.invalid(first)
        if self._state == SEARCH:
            self._owner.boundary_lost(self._is_request, None)

    def _drop_buffer(self) -> None:
        if self._buffer is not None:
            self._budget.release(len(self._buffer))
            self._buffer = None

    def _defer(self, kind: int, seq: int, ack: int, ts_ns: int, data: bytes) -> None:
        size = len(data) + DEFERRED_OVERHEAD_BYTES
        if self._backlog_bytes + size > MAX_BACKLOG_BYTES or not self._budget.charge(size):
            self.resume(True)
            if kind == _DATA:
                self.data(seq, ack, ts_ns, data)
            elif kind == _END:
                self.end(ts_ns)
            else:
                self.gap(seq, kind == _CUT, ts_ns)
            return
        self._backlog_bytes += size
        if self.backlog is None:
            self.backlog = deque()
        self.backlog.append((kind, seq, ack, ts_ns, data))


def head_end(data: bytes | bytearray, start: int, search_from: int = 0) -> int:
    """Where the head that begins at `start` ends, behind its empty line; -1 when that is not here yet.

    Lines end with CRLF; a head whose first line ends with a bare LF is read with bare LF throughout.
    """
    line_end = data.find(b"\n", start)
    if line_end < 0:
        return -1
    if line_end > start and data[line_end - 1] == 13:
        end = data.find(b"\r\n\r\n", max(start, search_from))
        return end + 4 if end >= 0 else -1
    end = data.find(b"\n\n", max(start, search_from))
    return end + 2 if end >= 0 else -1
