"""One TCP connection as HTTP/1: two streams of messages, paired to exchanges. And what all connections share.

The roles come from the bytes: who speaks `HTTP/1.` is the server, who asks is the client, whatever the ports; for a
connection whose SYN was seen the two agree. A connection whose first bytes are TLS, HTTP/2 or anything else is given
up at once (`flow.ignored`) and counted; HTTP/2 has its place here for the day it is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vxsniff.flow.flow import Consumer, Flow
from vxsniff.flow.seq import add
from vxsniff.http import pairing, sniff, stream
from vxsniff.http.budget import Budget
from vxsniff.http.head import HeadReader
from vxsniff.http.message import Message
from vxsniff.http.pairing import Exchange, Pairing
from vxsniff.http.stream import MessageStream, Owner

RESPONSE_WAIT_NS: Final = 2_000_000_000
"""How long a response waits for a request that was not seen yet (two mirrors, two paths)."""
UNANSWERED_NS: Final = 120_000_000_000
"""How long a request waits for its response: GoReplay's figure."""
MAX_PENDING: Final = 1024


class HttpCounters:
    """Plain integers. At any time, but for what is open (`HttpConnections.open_requests`, `.open_responses`):

    requests == exchanges + unanswered + responses_lost;  responses == exchanges + orphans + ambiguous
    """

    def __init__(self) -> None:
        self.requests = 0
        self.responses = 0
        self.informational = 0
        self.exchanges = 0
        self.unanswered = 0
        self.responses_lost = 0
        self.orphans = 0
        self.ambiguous = 0
        self.late = 0
        self.invalid_heads = 0
        self.searches = 0
        self.skipped_bytes = 0
        self.tls_flows = 0
        self.http2_flows = 0
        self.other_flows = 0
        self.upgraded_flows = 0


class HttpConnections:
    """Makes connections, gives their exchanges on, and keeps the deadlines of those that wait."""

    def __init__(
        self,
        on_exchange: Callable[[Exchange, Flow], None],
        budget: Budget,
        body_limit_bytes: int = 1_048_576,
    ) -> None:
        self.on_exchange = on_exchange
        self.budget = budget
        self.body_limit_bytes = body_limit_bytes
        self.counters = HttpCounters()
        self.request_heads = HeadReader(True)
        self.response_heads = HeadReader(False)
        self.open_requests = 0
        self.open_responses = 0
        # Since when a connection has waited, in order of time: for an answer, and with an answer for its request.
        self.unanswered: dict[HttpConnection, int] = {}
        self.blocked: dict[HttpConnection, int] = {}

    def connection(self, flow: Flow) -> HttpConnection:
        """The consumer of a new flow."""
        return HttpConnection(flow, self)

    def advance(self, now_ns: int) -> None:
        """Looks at deadlines; call it every tick."""
        while self.blocked:
            connection = next(iter(self.blocked))
            if now_ns - self.blocked[connection] < RESPONSE_WAIT_NS:
                break
            del self.blocked[connection]
            connection.wait_is_over()
        while self.unanswered:
            connection = next(iter(self.unanswered))
            if now_ns - self.unanswered[connection] < UNANSWERED_NS:
                break
            del self.unanswered[connection]
            connection.let_go(now_ns - UNANSWERED_NS)


class HttpConnection(Consumer, Owner):
    """Consumer of one flow, and owner of its two streams."""

    __slots__ = (
        "_answer_start",
        "_answered",
        "_answering",
        "_first",
        "_flow",
        "_has_waited",
        "_pairing",
        "_requests",
        "_responses",
        "_second",
        "_shared",
        "_undecided",
    )

    def __init__(self, flow: Flow, shared: HttpConnections) -> None:
        self._first: MessageStream | None = None  # what side 0 sends
        self._second: MessageStream | None = None
        self._flow = flow
        self._shared = shared
        self._pairing = Pairing()
        self._requests = MessageStream(True, self, shared.request_heads, shared.budget, shared.body_limit_bytes)
        self._responses = MessageStream(False, self, shared.response_heads, shared.budget, shared.body_limit_bytes)
        self._answering: Exchange | None = None  # whose response is being read
        self._answered: Exchange | None = None  # whose response was whole before its request, the last one, is
        self._answer_start = -1  # where the 1xx responses before the final one began
        self._has_waited = False
        self._undecided: list[bytes] = [b"", b""]

    def _stream(self, side: int) -> MessageStream | None:
        """What that side sends; None while that is not known."""
        return self._second if side else self._first

    def _set_stream(self, side: int, messages: MessageStream) -> None:
        if side:
            self._second = messages
        else:
            self._first = messages

    # ---- Consumer

    def data(self, side: int, seq: int, ack: int, ts_ns: int, payload: bytes) -> None:
        messages = self._stream(side)
        if messages is None:
            messages = self._decide(side, payload)
            if messages is None:
                return
            undecided = self._undecided[side]
            if undecided:
                # What was too little to tell by is given with the rest; it lies before.
                self._forget_undecided(side)
                payload = undecided + payload
                seq = add(seq, -len(undecided))
        messages.data(seq, ack, ts_ns, payload)

    def gap(self, side: int, missing_bytes: int, cut: bool, ts_ns: int) -> None:
        if self._stream(side) is None:
            # Lost before it said what it speaks: the role comes from the other side, or from the SYN.
            self._forget_undecided(side)
            other = self._stream(1 - side)
            if other is self._requests or (other is None and self._flow.client == 1 - side):
                self._set_stream(side, self._responses)
            elif other is self._responses or self._flow.client == side:
                self._set_stream(side, self._requests)
        messages = self._stream(side)
        if messages is not None:
            messages.gap(missing_bytes, cut, ts_ns)

    def end(self, side: int, ts_ns: int) -> None:
        messages = self._stream(side)
        if messages is not None:
            messages.end(ts_ns)

    def closed(self, ts_ns: int) -> None:
        while self._responses.blocked:  # and then the next that stood behind it
            self.wait_is_over()
        while self._requests.blocked:
            self._requests.resume(True)
        self._requests.end(ts_ns)
        self._responses.end(ts_ns)
        self._leave()
        self._requests.part()
        self._responses.part()

    # ---- roles

    def _decide(self, side: int, payload: bytes) -> MessageStream | None:
        """Which stream this side is, once its bytes tell; None when they don't yet, or are not HTTP/1."""
        data = self._undecided[side] + payload
        kind = sniff.classify(data.lstrip(b"\r\n"))
        if (
            kind == sniff.NEED_MORE
            and len(data) <= sniff.MAX_FIRST_LINE_BYTES
            and self._shared.budget.charge(len(payload))
        ):
            self._undecided[side] = data
            return None
        messages = None
        if kind == sniff.REQUEST:
            messages = self._requests
        elif kind == sniff.RESPONSE:
            messages = self._responses
        if messages is None or self._stream(1 - side) is messages:
            counters = self._shared.counters
            if kind == sniff.TLS:
                counters.tls_flows += 1
            elif kind == sniff.HTTP2:
                counters.http2_flows += 1
            else:
                counters.other_flows += 1
            self._ignore()
            return None
        self._set_stream(side, messages)
        if self._flow.half(side).midstream:
            self._pairing.responses_lost()
        return messages

    def _forget_undecided(self, side: int) -> None:
        self._shared.budget.release(len(self._undecided[side]))
        self._undecided[side] = b""

    def _ignore(self) -> None:
        """The rest of this connection is not HTTP/1."""
        self._flow.ignored = True
        self._leave()
        self._requests.leave_http()
        self._responses.leave_http()

    def _leave(self) -> None:
        """Ends everything that is open."""
        answered, self._answered = self._answered, None
        if answered is not None:
            self._emit(answered)
        answering, self._answering = self._answering, None
        if answering is not None:
            self._emit(answering)
        self._give_up(len(self._pairing.pending))
        self._shared.blocked.pop(self, None)
        self._forget_undecided(0)
        self._forget_undecided(1)
        for messages in (self._requests, self._responses):
            messages.drop()
            self._shared.counters.skipped_bytes += messages.skipped_bytes
            messages.skipped_bytes = 0

    # ---- Owner

    def head(self, is_request: bool, message: Message, forced: bool) -> int:
        return self._request_head(message) if is_request else self._response_head(message, forced)

    def complete(self, is_request: bool, message: Message) -> None:
        if is_request:
            self._request_complete(message)
        else:
            self._response_complete(message)

    def boundary_lost(self, is_request: bool, message: Message | None) -> None:
        self._shared.counters.searches += 1
        if message is not None:
            message.complete = True  # as complete as it will ever be
        if is_request:
            self._pairing.requests_lost()
            if message is not None:
                self._asked(message)
            return
        self._pairing.responses_lost()
        self._answer_start = -1  # the final response to those 1xx may be what was lost
        exchange, self._answering = self._answering, None
        if exchange is not None:
            self._has_answer(exchange)
        elif message is not None:
            message.release()

    def invalid(self, first: bool) -> None:
        self._shared.counters.invalid_heads += 1
        if first and not self._pairing.has_begun and not self._flow.midstream:
            self._shared.counters.other_flows += 1
            self._ignore()

    # ---- requests

    def _request_head(self, message: Message) -> int:
        shared = self._shared
        shared.counters.requests += 1
        shared.open_requests += 1
        if len(self._pairing.pending) >= MAX_PENDING:
            self._give_up(1)
            self._pairing.responses_lost()
        exchange = self._pairing.request(message)
        exchange.client = 0 if self._first is self._requests else 1
        exchange.upgrade = message.headers.upgrade or message.method == b"CONNECT"
        exchange.expects_continue = message.headers.expects_continue
        shared.unanswered.setdefault(self, message.start_ns)
        return stream.READ_BODY if message.method != b"CONNECT" else stream.NO_BODY

    def _request_complete(self, message: Message) -> None:
        pending = self._pairing.pending
        if pending and pending[-1].request is message and pending[-1].upgrade:
            self._requests.blocked = True
            self._requests.start_may_follow = True
        self._asked(message)
        if self._responses.blocked:
            self._shared.blocked.pop(self, None)
            self._responses.resume(False)

    # ---- responses

    def _response_head(self, message: Message, forced: bool) -> int:
        counters = self._shared.counters
        status = message.status
        start_seq = message.start_seq if self._answer_start < 0 else self._answer_start
        if 100 <= status < 200 and status != 101:
            self._answer_start = start_seq
            return stream.NO_BODY
        result, exchange = self._pairing.match(start_seq, message.ack)
        if result == pairing.WAIT and not forced:
            self._has_waited = True
            self._shared.blocked.setdefault(self, message.end_ns)
            return stream.BLOCK
        self._answer_start = -1
        has_waited, self._has_waited = self._has_waited, False
        if has_waited:
            self._shared.blocked.pop(self, None)
        self._count_given_up()
        counters.responses += 1
        if exchange is None:
            if result == pairing.AMBIGUOUS:
                counters.ambiguous += 1
            else:
                counters.orphans += 1
            self._answering = None
            return stream.FORCED if status != 101 else stream.LEAVE_HTTP
        self._shared.open_responses += 1
        exchange.response = message
        exchange.late = has_waited
        self._answering = exchange
        if _leaves_http(exchange.request, message):
            return stream.LEAVE_HTTP
        if exchange.expects_continue and not exchange.request.complete:
            self._requests.start_may_follow = True
        return stream.NO_BODY if exchange.request.method == b"HEAD" else stream.READ_BODY

    def _response_complete(self, message: Message) -> None:
        if 100 <= message.status < 200 and message.status != 101:
            self._shared.counters.informational += 1
            message.release()
            return
        exchange, self._answering = self._answering, None
        if exchange is None:
            self._pairing.unmatched_ended(message)
            message.release()
            if message.status == 101:
                self._upgraded()
            return
        self._pairing.response_ended(message.end_seq)
        self._has_answer(exchange)
        if _leaves_http(exchange.request, message):
            self._upgraded()
        elif self._requests.blocked and not self._pairing.pending:
            self._requests.resume(False)

    def _upgraded(self) -> None:
        self._shared.counters.upgraded_flows += 1
        self._ignore()

    def wait_is_over(self) -> None:
        """The request that a response waits for will not come."""
        self._shared.blocked.pop(self, None)
        if self._responses.blocked:
            self._responses.resume(True)

    # ---- exchanges

    def _has_answer(self, exchange: Exchange) -> None:
        """Its response is whole, and it is no longer the one that is being read."""
        if exchange.request.complete:
            self._emit(exchange)
        else:
            self._answered = exchange

    def _asked(self, request: Message) -> None:
        """A request is whole."""
        exchange = self._answered
        if exchange is not None and exchange.request is request:
            self._answered = None
            self._emit(exchange)

    def _emit(self, exchange: Exchange) -> None:
        """Both messages are here, or all of them that ever will be; nobody here keeps it any more."""
        shared = self._shared
        shared.open_requests -= 1
        shared.open_responses -= 1
        response = exchange.response
        assert response is not None
        if exchange.is_proven:
            shared.counters.exchanges += 1
            shared.counters.late += exchange.late
            if not exchange.request.complete:
                exchange.request.lose_body(1, True)
            if not response.complete:
                response.lose_body(1, True)
            shared.on_exchange(exchange, self._flow)
        else:
            shared.counters.responses_lost += 1
            shared.counters.ambiguous += 1
            self._pairing.sends_ahead()
        exchange.request.release()
        response.release()

    def _count_given_up(self) -> None:
        """After a match: what became of the requests that wait."""
        given_up, self._pairing.given_up = self._pairing.given_up, 0
        self._shared.counters.responses_lost += given_up
        self._shared.open_requests -= given_up
        self._waits_no_more()

    def _give_up(self, count: int) -> None:
        """The oldest `count` requests that wait are let go."""
        for _ in range(count):
            self._pairing.pending.pop(0).request.release()
            self._shared.counters.unanswered += 1
            self._shared.open_requests -= 1
        self._waits_no_more()

    def _waits_no_more(self) -> None:
        """Unless a request does, there is no deadline to look at."""
        if not self._pairing.pending and self in self._shared.unanswered:
            del self._shared.unanswered[self]

    def let_go(self, before_ns: int) -> None:
        """Requests that began before that time have waited long enough."""
        pending = self._pairing.pending
        count = 0
        while count < len(pending) and pending[count].request.start_ns <= before_ns:
            count += 1
        self._give_up(count)
        if count:
            self._pairing.responses_lost()
        if pending:
            self._shared.unanswered[self] = pending[0].request.start_ns
        elif self._requests.blocked:
            self._requests.resume(True)


def _leaves_http(request: Message, response: Message) -> bool:
    """Whether this answer turns the connection into something else (RFC 9110 sections 7.8 and 9.3.6)."""
    return response.status == 101 or (request.method == b"CONNECT" and 200 <= response.status < 300)
