"""Flows of one state by the time of their last segment: who is the idlest?

Segments are many and never touch this: an entry has the time at which its flow was last looked at, which is never after
its last segment. A flow that comes to the top with an older time than its own goes back with its own; so what stays at
the top is the idlest, exactly. Entries of flows that have left are dropped when they come to the top, or all at once
when they are the most: a long-lived flow at the top must not keep thousands behind it.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from vxsniff.flow.flow import Flow

_SLACK: Final = 64


class IdleQueue:
    """The flows of one state. A flow enters a state once; `left` is told when it changed to another."""

    __slots__ = ("_entries", "_live", "_serial", "_state")

    def __init__(self, state: int) -> None:
        self._state = state
        self._entries: list[tuple[int, int, Flow]] = []  # time, a number that tells equal times apart, flow
        self._serial = 0
        self._live = 0

    def __len__(self) -> int:
        """How many flows there are."""
        return self._live

    @property
    def entry_count(self) -> int:
        return len(self._entries)

    def add(self, flow: Flow) -> None:
        self._serial += 1
        heappush(self._entries, (flow.last_ns, self._serial, flow))
        self._live += 1

    def left(self) -> None:
        """A flow has another state by now."""
        self._live -= 1
        if len(self._entries) > 2 * self._live + _SLACK:
            self._entries = [entry for entry in self._entries if entry[2].state == self._state]
            heapify(self._entries)

    def idlest(self) -> Flow | None:
        entries = self._entries
        while entries:
            since_ns, serial, flow = entries[0]
            if flow.state != self._state:
                heappop(entries)
            elif flow.last_ns > since_ns:
                heapreplace(entries, (flow.last_ns, serial, flow))
            else:
                return flow
        return None

    def idle_since(self, before_ns: int) -> Flow | None:
        """A flow whose last segment was at `before_ns` or earlier. Cheap while there is none."""
        if not self._entries or self._entries[0][0] > before_ns:
            return None
        flow = self.idlest()
        return flow if flow is not None and flow.last_ns <= before_ns else None
