"""One TCP connection: its two directions, and who is told of its bytes."""

from __future__ import annotations

from typing import Final, Protocol

from vxsniff.flow.reassembly import HalfStream

UNKNOWN: Final = -1

# A flow's state, and the queue that it stands in for its end.
HALF_OPEN: Final = 0
OPEN: Final = 1
CLOSED: Final = 2
REMOVED: Final = 3


class Consumer(Protocol):
    """What a flow's bytes are given to. `side` is 0 or 1: whose bytes they are (0: the key's source)."""

    def data(self, side: int, seq: int, ack: int, ts_ns: int, payload: bytes) -> None:
        """The next bytes in order; `ack` is what their sender had received by then."""

    def gap(self, side: int, missing_bytes: int, cut: bool, ts_ns: int) -> None:
        """The next bytes will never come: lost, or `cut` off by the mirror's packet length."""

    def end(self, side: int, ts_ns: int) -> None:
        """This side has sent FIN, and all before it was given."""

    def closed(self, ts_ns: int) -> None:
        """The flow is over: closed, reset, idle or evicted. Nothing follows."""


class Flow:
    """One TCP connection. `ignored` is set by the consumer to give up the flow: its bytes are then only counted."""

    __slots__ = (
        "client",
        "consumer",
        "ended",
        "halves",
        "ignored",
        "key",
        "last_ns",
        "midstream",
        "next_same",
        "reset_ns",
        "state",
        "vni",
        "vnis",
    )

    def __init__(self, vni: int, key: bytes, ts_ns: int) -> None:
        self.vni = vni
        self.vnis: tuple[int, ...] = (vni,)
        self.key = key
        self.halves = (HalfStream(), HalfStream())
        self.client = UNKNOWN  # the side that sent the SYN
        self.midstream = False
        self.ignored = False
        self.consumer: Consumer | None = None
        self.ended = 0  # bit 0, 1: which sides the consumer was told the end of
        self.reset_ns = 0
        self.last_ns = ts_ns
        self.state = HALF_OPEN
        self.next_same: Flow | None = None  # another flow between the same endpoints, in another VNI
