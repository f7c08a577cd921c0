"""Which response answers which request, on one connection.

By order (RFC 9112 section 9.3). Two things are true of every real pair and are checked always:
- the response begins at or behind what the client had acknowledged when it began the request (`request.ack`): what
  was received before the question can't be its answer;
- the server had received the request's first byte when it began the response (`response.ack`).

After bytes were lost that may have held whole messages, and on a connection that was picked up midway, order alone
proves nothing. Then a response is paired only with the request whose `ack` is exactly the response's first byte: a
client that waits for each answer has received everything before the next question. Of a client that sends ahead
(pipelining) the response is given up: one given to the wrong request is worse than a missing one. Such a client shows
by two requests with one `ack`, by a request sent before the last answer's end, or by a server that had received more
than the request when it answered (`is_proven`).

Where requests were lost, that is not enough: of some that were sent ahead only the last may be left. There the answer
to a lost request must have been seen, up to the very byte where the response begins, sent when the server had
received all before this request and nothing of it. On a connection picked up midway this is not asked for, or its
first call would always be lost: of requests sent ahead just there, of which only the last was captured, that one gets
the answer of the first.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from vxsniff.flow.seq import diff
from vxsniff.http.message import Message


@mypyc_attr(acyclic=True)
class Exchange:
    """A request, and its response once there is one. `client` is the flow's side that asked. `late`: the response was
    seen before its request; `by_ack`: they were paired by the acknowledgement, after a loss.
    """

    __slots__ = (
        "after_gaps",
        "by_ack",
        "client",
        "expects_continue",
        "first",
        "late",
        "request",
        "response",
        "upgrade",
    )

    def __init__(self, request: Message, after_gaps: int, first: bool) -> None:
        self.request = request
        self.response: Message | None = None
        self.after_gaps = after_gaps  # how many losses of whole messages there were before this request
        self.first = first  # the first call seen on its connection
        self.client = 0
        self.late = False
        self.by_ack = False
        self.expects_continue = False
        self.upgrade = False

    @property
    def is_proven(self) -> bool:
        """False when the pair was made after a loss, and the server had received more than the request by then."""
        return not self.by_ack or self.response is None or diff(self.response.ack, self.request.end_seq) <= 0


PAIRED: Final = 0
WAIT: Final = 1
ORPHAN: Final = 2
AMBIGUOUS: Final = 3


@mypyc_attr(acyclic=True)
class Pairing:
    """One connection's requests that wait for an answer."""

    __slots__ = (
        "_certain_gaps",
        "_gaps",
        "_pipelined",
        "_previous_ack",
        "_uncertain",
        "_unmatched_ack",
        "_unmatched_end",
        "given_up",
        "pending",
    )

    def __init__(self) -> None:
        self.pending: list[Exchange] = []  # short, mostly empty: a deque would cost ten times the memory
        self.given_up = 0  # requests passed over because their response was lost
        self._gaps = 0
        self._certain_gaps = 0  # requests up to this many losses are known to be the next in order
        self._uncertain = False  # responses may have been lost
        self._pipelined = False
        self._previous_ack = -1
        self._unmatched_end = -1  # where the last response without a request ended
        self._unmatched_ack = 0  # and what its server had received when it began

    def request(self, message: Message) -> Exchange:
        """A request's head was read."""
        exchange = Exchange(message, self._gaps, self._previous_ack < 0)
        if self._previous_ack == message.ack:
            self._pipelined = True  # nothing was received between the two
        self._previous_ack = message.ack
        self.pending.append(exchange)
        return exchange

    @property
    def has_begun(self) -> bool:
        """Whether any request was seen on this connection."""
        return self._previous_ack >= 0

    def requests_lost(self) -> None:
        """Bytes were lost that may have held whole requests."""
        self._gaps += 1

    def responses_lost(self) -> None:
        """Bytes were lost that may have held whole responses, or a request was let go unanswered, or the connection was
        picked up midway.
        """
        self._uncertain = True

    def sends_ahead(self) -> None:
        """The client was seen not to wait for an answer before it asks on; and what was paired was not proven."""
        self._pipelined = self._uncertain = True

    def response_ended(self, end_seq: int) -> None:
        """A paired response is whole."""
        if self.pending and diff(self.pending[0].request.ack, end_seq) < 0:
            self._pipelined = True

    def unmatched_ended(self, response: Message) -> None:
        """A response without a request is whole."""
        self._unmatched_end = response.end_seq
        self._unmatched_ack = response.ack

    def match(self, start_seq: int, ack: int) -> tuple[int, Exchange | None]:
        """The request that a response beginning at `start_seq` answers; it then no longer waits.

        WAIT means that no request is here yet that could be it.
        """
        pending = self.pending
        if not pending:
            return WAIT, None
        front = pending[0]
        if diff(start_seq, front.request.ack) < 0:
            return ORPHAN, None
        if self._uncertain or front.after_gaps > self._certain_gaps:
            return self._match_exactly(start_seq, ack)
        if diff(ack, front.request.start_seq) <= 0:
            return ORPHAN, None
        del pending[0]
        return PAIRED, front

    def _match_exactly(self, start_seq: int, ack: int) -> tuple[int, Exchange | None]:
        if self._pipelined:
            return AMBIGUOUS, None
        index = 0
        increasing = True
        for exchange in self.pending:
            if exchange.request.ack == start_seq:
                break
            index += 1
        else:
            return AMBIGUOUS, None
        for i in range(index):
            if self.pending[i].request.ack == self.pending[i + 1].request.ack:
                increasing = False
        found = self.pending[index]
        if diff(ack, found.request.start_seq) <= 0:
            return ORPHAN, None
        if index > 0 and not increasing:
            return AMBIGUOUS, None
        if found.after_gaps > self._certain_gaps and (
            start_seq != self._unmatched_end or found.request.start_seq != self._unmatched_ack
        ):
            return AMBIGUOUS, None
        for _ in range(index):
            self.pending.pop(0).request.release()
            self.given_up += 1
        self.pending.pop(0)
        self._uncertain = False
        self._certain_gaps = found.after_gaps
        found.by_ack = True
        return PAIRED, found
