"""One HTTP message: its head, what was kept of its body, and where and when it was on the wire."""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from vxsniff.http.budget import Budget
from vxsniff.http.headers import NO_HEADERS, Header, Headers

JOINED_BYTES: Final = 8192
"""Up to so much of a body is joined anew with the next piece; what is longer grows in place."""
OVERHEAD_BYTES: Final = 1024
"""What a message costs besides the bytes of its head and body: objects, integers, a tuple for each header."""


@mypyc_attr(acyclic=True)
class Message:
    """A request or a response. `status` is 0 for requests, `method` and `target` are empty for responses.

    `start_seq` is its first byte's sequence number and `ack` what its sender had received by then; times are
    nanoseconds. `gap_bytes` were lost, `cut_bytes` cut off by the mirror or never sent; a body with either is not
    kept, so that nothing is ever joined over a hole. `left_out_bytes` lie beyond the body limit or the memory limit.
    """

    __slots__ = (
        "ack",
        "body",
        "budget",
        "charged_bytes",
        "complete",
        "cut_bytes",
        "end_ns",
        "end_seq",
        "gap_bytes",
        "head_bytes",
        "headers",
        "keeps_body",
        "left_out_bytes",
        "method",
        "start_ns",
        "start_seq",
        "status",
        "target",
        "wire_body_bytes",
    )

    def __init__(self, start_seq: int, ack: int, start_ns: int, budget: Budget) -> None:
        self.start_seq = start_seq
        self.ack = ack
        self.start_ns = start_ns
        self.end_seq = start_seq
        self.end_ns = start_ns
        self.method = b""
        self.target = b""
        self.status = 0
        self.headers: Headers = NO_HEADERS
        self.body: bytes | bytearray = b""
        self.wire_body_bytes = 0
        self.left_out_bytes = 0
        self.gap_bytes = 0
        self.cut_bytes = 0
        self.complete = False
        self.keeps_body = True
        self.budget = budget
        self.charged_bytes = 0  # of the body
        self.head_bytes = 0  # of the head, and of this object

    @property
    def is_damaged(self) -> bool:
        """Whether part of the body never came."""
        return self.gap_bytes != 0 or self.cut_bytes != 0

    @property
    def is_imperfect(self) -> bool:
        """Whether anything of it is missing."""
        return self.is_damaged or self.left_out_bytes != 0

    def add_trailers(self, trailers: list[Header]) -> None:
        """Fields that came behind a chunked body."""
        self.headers = Headers([*self.headers.fields, *trailers])

    def add_body(self, data: bytes, limit_bytes: int) -> None:
        """Keeps what fits under the limit and the budget, and counts the rest."""
        self.wire_body_bytes += len(data)
        if not self.keeps_body:
            return
        kept = len(self.body)
        if self.left_out_bytes or kept + len(data) > limit_bytes:
            room = 0 if self.left_out_bytes else limit_bytes - kept
            self.left_out_bytes += len(data) - room
            data = data[:room]
        if not data:
            return
        if not self.budget.charge(len(data)):
            self.left_out_bytes += len(data)
            return
        self.charged_bytes += len(data)
        body = self.body
        if not kept:
            self.body = data
        elif isinstance(body, bytes):
            self.body = body + data if kept < JOINED_BYTES else bytearray(body) + data
        else:
            body += data

    def charge_head(self, size: int) -> bool:
        """Accounts for a head of that many bytes; False when the memory limit refuses it."""
        if not self.budget.charge(size + OVERHEAD_BYTES):
            return False
        self.head_bytes = size + OVERHEAD_BYTES
        return True

    def lose_body(self, missing_bytes: int, cut: bool) -> None:
        """Part of the body never came: none of it is kept."""
        if cut:
            self.cut_bytes += missing_bytes
        else:
            self.gap_bytes += missing_bytes
        self._drop_body()

    def release(self) -> None:
        """Gives the memory back that this message was charged for, and keeps nothing of what may follow."""
        self._drop_body()
        self.budget.release(self.head_bytes)
        self.head_bytes = 0

    def _drop_body(self) -> None:
        self.keeps_body = False
        self.body = b""
        self.budget.release(self.charged_bytes)
        self.charged_bytes = 0
