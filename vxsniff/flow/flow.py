"""One TCP connection: its two directions, and who is told of its bytes."""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from vxsniff.flow.reassembly import HalfStream

UNKNOWN: Final = -1

# A flow's state, and the queue that it stands in for its end.
HALF_OPEN: Final = 0
OPEN: Final = 1
CLOSED: Final = 2
REMOVED: Final = 3


@mypyc_attr(allow_interpreted_subclasses=True)
class Consumer:
    """What a flow's bytes are given to. `side` is 0 or 1: whose bytes they are (0: the key's source).

    A class to inherit from, not a protocol: compiled, a call of its methods is a jump instead of a look-up.
    """

    __slots__ = ()

    def data(self, side: int, seq: int, ack: int, ts_ns: int, payload: bytes) -> None:
        """The next bytes in order; `ack` is what their sender had received by then."""
        raise NotImplementedError

    def gap(self, side: int, missing_bytes: int, cut: bool, ts_ns: int) -> None:
        """The next bytes will never come: lost, or `cut` off by the mirror's packet length."""
        raise NotImplementedError

    def end(self, side: int, ts_ns: int) -> None:
        """This side has sent FIN, and all before it was given."""
        raise NotImplementedError

    def closed(self, ts_ns: int) -> None:
        """The flow is over: closed, reset, idle or evicted. Nothing follows."""
        raise NotImplementedError


class Flow:
    """One TCP connection. `ignored` is set by the consumer to give up the flow: its bytes are then only counted."""

    __slots__ = (
        "client",
        "consumer",
        "ended",
        "first",
        "ignored",
        "key",
        "last_ns",
        "midstream",
        "next_same",
        "reset_ns",
        "second",
        "state",
        "vni",
        "vnis",
    )

    def __init__(self, vni: int, key: bytes, ts_ns: int) -> None:
        # First what each segment touches.
        self.vni = vni
        self.key = key
        self.state = HALF_OPEN
        self.ignored = False
        self.midstream = False
        self.last_ns = ts_ns
        self.first = HalfStream()
        self.second = HalfStream()
        self.consumer: Consumer | None = None
        self.vnis: tuple[int, ...] = (vni,)
        self.client = UNKNOWN  # the side that sent the SYN
        self.ended = 0  # bit 0, 1: which sides the consumer was told the end of
        self.reset_ns = 0
        self.next_same: Flow | None = None  # another flow between the same endpoints, in another VNI

    def half(self, side: int) -> HalfStream:
        """What that side sends: 0 is the key's source."""
        return self.second if side else self.first

    @property
    def halves(self) -> tuple[HalfStream, HalfStream]:
        return self.first, self.second
