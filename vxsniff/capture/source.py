"""What every live source of packets has in common."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, Protocol

from vxsniff.wire.vxlan import VniFilter


class CaptureError(Exception):
    """Capturing can't begin; the message says what is in the way and what to do."""


class Note(NamedTuple):
    """Something that people should know of."""

    text: str
    is_warning: bool = False


class Receiver(Protocol):
    """Whom packets are for: their bytes, and their time in nanoseconds since the epoch."""

    def vxlan_datagram(self, data: bytes, ts_ns: int) -> object: ...

    def geneve_datagram(self, data: bytes, ts_ns: int) -> object: ...

    def frame(self, data: bytes, link_type: int, ts_ns: int) -> object: ...


class Source(Protocol):
    """Packets that are taken as they come. Used by one thread, but for `kernel_dropped` and `counts`."""

    def describe(self) -> str:
        """What is captured from, in words."""

    def notes(self) -> list[Note]:
        """What there is to say since this was last asked."""

    def use(self, receiver: Receiver) -> None:
        """From now on packets go there."""

    def want(self, vnis: VniFilter, ports: frozenset[int]) -> None:
        """The kernel may leave out what is of other VNIs and TCP ports, and what carries nothing."""

    def want_all(self) -> None:
        """It leaves out nothing any more."""

    def shut_out(self) -> None:
        """It is about to be closed: what outlives it takes nothing more."""

    def wait(self, timeout_ms: int) -> bool:
        """Waits until something may be read; False when the time is over first."""

    def receive(self) -> int:
        """Gives some of what has arrived to whom it was made for; returns how many packets those were."""

    def now_ns(self) -> int:
        """The time now by the clock of the packets."""

    @property
    def kernel_dropped(self) -> int:
        """Packets lost before they could be read, since the start."""

    @property
    def counts(self) -> Counter[str]:
        """What it counts besides, by name in the ledger, since the start."""

    def close(self) -> None: ...
