"""The middle rooms put together: frames in, lines out. One pipeline a worker; no I/O of its own.

    Decoder -> FlowTable -> HttpConnections -> RecordBuilder -> Policy -> line -> `ship`

An error in here is a defect of ours: the call or segment at hand is dropped and counted, the error is told to
`on_error`, and capturing goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vxsniff import AGENT_MARK
from vxsniff.call import ndjson, policy
from vxsniff.call.policy import Policy
from vxsniff.call.record import Record, RecordBuilder, RecordCounters
from vxsniff.call.rules import RuleSet
from vxsniff.capture.file import Frame
from vxsniff.flow.flow import Flow
from vxsniff.flow.table import TICK_NS, FlowTable
from vxsniff.http import sniff
from vxsniff.http.budget import Budget
from vxsniff.http.connection import HttpConnections
from vxsniff.http.headers import USER_AGENT
from vxsniff.http.pairing import Exchange
from vxsniff.wire.decode import Decoder
from vxsniff.wire.segment import Segment
from vxsniff.wire.vxlan import VniFilter

Format = Callable[[Record], bytes]
"""What a call looks like where it goes; its runs were treated."""


def ndjson_format(host: str) -> Format:
    """NDJSON, naming the machine that captured the call."""
    end = ndjson.line_end(host)
    return lambda record: ndjson.line(record.runs, end)


class CallCounters:
    """Plain integers. calls == shipped + sum(dropped) + disabled + own + failed"""

    def __init__(self) -> None:
        self.calls = 0
        self.shipped = 0
        self.dropped = [0] * 4  # by policy's outcome; PASSED stays 0
        self.disabled = 0
        self.own = 0
        self.failed = 0


class Pipeline:
    """See the module's docstring.

    `memory_limit_bytes` bounds all reassembly state: a quarter for segments held behind holes, a quarter for the flows
    themselves, half for heads, bodies and data that waits. `ship` takes a finished line and is called from within the
    methods of this class.
    """

    FLOW_BYTES: Final = 3072
    """What a flow with its two streams costs besides payload: 2.1 KB measured, rounded up."""

    def __init__(
        self,
        vnis: VniFilter,
        rules: RuleSet,
        ship: Callable[[bytes], None],
        *,
        format_call: Format,
        draw: Callable[[], int],
        on_error: Callable[[Exception], None],
        ports: frozenset[int] = frozenset(),
        dedup: bool = True,
        realip_header: str = "",
        body_limit_bytes: int = 1_048_576,
        memory_limit_bytes: int = 512 * 1_048_576,
        call_ids: bool = True,
        disabled: bool = False,
    ) -> None:
        self.decoder = Decoder(vnis, ports)
        held_bytes = memory_limit_bytes // 4
        flow_bytes = memory_limit_bytes // 4
        self.budget = Budget(memory_limit_bytes - held_bytes - flow_bytes)
        self.http = HttpConnections(self._exchange, self.budget, body_limit_bytes)
        self.table = FlowTable(
            self.http.connection,
            sniff.looks_like_start,
            dedup=dedup,
            max_flows=max(16, flow_bytes // self.FLOW_BYTES),
            max_held_bytes=held_bytes,
        )
        self._draw = draw
        self.record_counters = RecordCounters()
        self.use(rules, realip_header, body_limit_bytes, call_ids, disabled)
        self.counters = CallCounters()
        self.segments_failed = 0
        self._next_tick_ns = 0
        self._format = format_call
        self._ship = ship
        self._on_error = on_error

    def use(
        self, rules: RuleSet, realip_header: str, body_limit_bytes: int, call_ids: bool, disabled: bool = False
    ) -> None:
        """Calls are made and treated so from now on."""
        self.policy = Policy(rules, self._draw)
        self.http.request_heads.forget()
        self.http.response_heads.forget()
        self.http.body_limit_bytes = body_limit_bytes
        self.builder = RecordBuilder(self.policy, realip_header, body_limit_bytes, call_ids, self.record_counters)
        self._is_disabled = disabled or rules.skip_submission

    # ---- frames

    def vxlan_datagram(self, data: bytes, ts_ns: int) -> None:
        """A UDP payload from the VXLAN port."""
        segment = self.decoder.vxlan_datagram(data, ts_ns)
        if segment is not None:
            self._segment(segment)

    def geneve_datagram(self, data: bytes, ts_ns: int) -> None:
        """A UDP payload from the GENEVE port."""
        segment = self.decoder.geneve_datagram(data, ts_ns)
        if segment is not None:
            self._segment(segment)

    def frame(self, data: bytes, link_type: int, ts_ns: int) -> None:
        """A frame of a capture file or device."""
        segment = self.decoder.frame(data, link_type, ts_ns)
        if segment is not None:
            self._segment(segment)

    def frames(self, frames: list[Frame]) -> None:
        """Several of them."""
        for frame in frames:
            segment = self.decoder.frame_in(frame.source, frame.start, frame.end, frame.link_type, frame.ts_ns)
            if segment is not None:
                self._segment(segment)

    def _segment(self, segment: Segment) -> None:
        if segment.ts_ns >= self._next_tick_ns:
            self.advance(segment.ts_ns)
        try:
            self.table.segment(segment)
        except Exception as error:
            self.segments_failed += 1
            self._on_error(error)

    def advance(self, now_ns: int) -> None:
        """Looks at deadlines. Segments do it by their own time; call it when none came for TICK_NS."""
        self._next_tick_ns = now_ns + TICK_NS
        try:
            self.table.advance(now_ns)
            self.http.advance(now_ns)
        except Exception as error:
            self.segments_failed += 1
            self._on_error(error)

    def finish(self) -> None:
        """No more frames will come: what is complete is shipped, the rest is let go and counted."""
        try:
            self.table.finish()
        except Exception as error:
            self.segments_failed += 1
            self._on_error(error)

    # ---- calls

    def _exchange(self, exchange: Exchange, flow: Flow) -> None:
        counters = self.counters
        counters.calls += 1
        if self._is_disabled:
            counters.disabled += 1
            return
        if exchange.request.headers.first(USER_AGENT).endswith(AGENT_MARK):
            counters.own += 1
            return
        try:
            record = self.builder.build(exchange, flow)
            outcome = self.policy.outcome(record.runs)
            if outcome != policy.PASSED:
                counters.dropped[outcome] += 1
                return
            line = self._format(record)
        except Exception as error:
            counters.failed += 1
            self._on_error(error)
            return
        counters.shipped += 1
        self._ship(line)
