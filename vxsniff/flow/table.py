"""All TCP connections of a worker: segments -> calls of each connection's Consumer, in order, holes named.

A flow is a VNI and two endpoints. When both ends of a connection are mirrored, every segment arrives twice, in two
VNIs: such *twins* are joined to one flow when the second VNI's first segment fits the first one's sequence numbers in
both directions; the second copies are then ordinary retransmissions. The same endpoints with foreign numbers (VPCs
with overlapping addresses) stay apart.

Mirrors lose and reorder. A hole is declared lost REORDER_WAIT_NS after the other side acknowledged past it (not at
once: the segment may still be on its way through a load balancer), after HOLE_WAIT_NS without such word, or as soon as
holding back costs more than a bound. A flow without a SYN begins REORDER_WAIT_NS after its first payload, at the
earliest segment that looks like the start of a message.

Time is the segments' own: deadlines are looked at when a segment's timestamp has passed the next tick, and by
`advance` when nothing arrives, so a capture file gives what the live run gave.

Bounds: `max_flows` (closed flows go first, then half-open ones if they are the most, then the idlest), `max_held_bytes`
in all (the flow that waits longest gives up its holes), and those of reassembly. Idle flows end after IDLE_NS, flows
that never carried a byte after HALF_OPEN_NS; a closed flow lingers CLOSED_NS to swallow late copies of its segments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vxsniff.flow.flow import CLOSED, HALF_OPEN, OPEN, REMOVED, UNKNOWN, Consumer, Flow
from vxsniff.flow.idle import IdleQueue
from vxsniff.flow.matching import is_reused, is_twin
from vxsniff.flow.reassembly import WINDOW_BYTES, HalfStream, Piece, trim_front
from vxsniff.flow.seq import add, diff
from vxsniff.wire.segment import ACK, FIN, RST, SYN, Segment, reverse_key

REORDER_WAIT_NS: Final = 250_000_000
HOLE_WAIT_NS: Final = 10_000_000_000
TICK_NS: Final = 50_000_000
IDLE_NS: Final = 3_600_000_000_000
HALF_OPEN_NS: Final = 60_000_000_000
CLOSED_NS: Final = 5_000_000_000


class FlowTable:
    """See the module's docstring. Counters are plain integers; at any time

    payload_bytes == delivered + duplicate + ignored + midstream + out_of_window + after_end + evicted
                     + held_payload_bytes
    """

    def __init__(
        self,
        make_consumer: Callable[[Flow], Consumer],
        looks_like_start: Callable[[bytes], bool],
        dedup: bool = True,
        max_flows: int = 131_072,
        max_held_bytes: int = 128 * 1024 * 1024,
    ) -> None:
        self._make_consumer = make_consumer
        self._looks_like_start = looks_like_start
        self._dedup = dedup
        self._max_flows = max_flows
        self._max_held_bytes = max_held_bytes
        self._flows: dict[bytes, Flow] = {}  # both keys of every flow
        self._idle = (IdleQueue(HALF_OPEN), IdleQueue(OPEN), IdleQueue(CLOSED))
        self._soon: dict[Flow, int] = {}  # since when; in order of time
        self._later: dict[Flow, int] = {}
        self._next_tick_ns = 0
        self.now_ns = 0
        self.flow_count = 0
        self.held_bytes = 0
        # payload bytes, by what became of them
        self.payload_bytes = 0
        self.delivered_bytes = 0
        self.duplicate_bytes = 0
        self.ignored_bytes = 0
        self.midstream_bytes = 0
        self.out_of_window_bytes = 0
        self.after_end_bytes = 0
        self.evicted_bytes = 0
        # bytes that never came
        self.lost_bytes = 0
        self.cut_bytes = 0
        self.holes_lost = 0
        # flows
        self.flows_opened = 0
        self.flows_midstream = 0
        self.flows_joined = 0
        self.flows_evicted = 0
        self.flows_expired = 0
        self.port_reuses = 0

    @property
    def held_payload_bytes(self) -> int:
        """Payload that waits behind holes: whatever holds any stands in one of the two queues."""
        return sum(
            half.held_payload_bytes for queue in (self._soon, self._later) for flow in queue for half in flow.halves
        )

    # ---- segments

    def segment(self, segment: Segment) -> None:
        """Takes the next segment, of any flow."""
        ts_ns = segment.ts_ns
        if ts_ns >= self._next_tick_ns:
            self.advance(ts_ns)
        payload = segment.payload
        self.payload_bytes += len(payload)
        found = self._flows.get(segment.key)
        if found is None or segment.vni != found.vni or found.state == CLOSED or segment.flags & (SYN | RST):
            found = self._flow_for(segment, found)
            if found is None:
                return
        flow = found
        if ts_ns > flow.last_ns:
            flow.last_ns = ts_ns
        side = 0 if segment.key == flow.key else 1
        if flow.ignored:
            self.ignored_bytes += len(payload)
            if segment.flags & (FIN | RST):
                self._end_ignored(flow, side, segment)
            return
        half = flow.half(side)
        if payload or segment.missing_bytes:
            if half.synchronised and segment.seq == half.next_seq and not half.held_bytes and not segment.missing_bytes:
                self._deliver(flow, side, half, payload, segment.ack, ts_ns)
            else:
                self._payload(flow, side, half, segment)
            if half.fin_pos >= 0:
                self._check_end(flow, side, half)
            if half.has_hole:
                self._wait(flow)
        if segment.flags & ACK:
            peer = flow.half(1 - side)
            if segment.ack != peer.next_seq and peer.synchronised:
                self._acknowledged(flow, peer, segment.ack)
        if segment.flags & FIN:
            self._fin(flow, side, half, segment)

    def _deliver(self, flow: Flow, side: int, half: HalfStream, payload: bytes, ack: int, ts_ns: int) -> None:
        """The next bytes in order go to the consumer."""
        seq = half.next_seq
        if half.fin_pos >= 0 and half.next_pos + len(payload) > half.fin_pos:
            keep = max(0, half.fin_pos - half.next_pos)
            self.after_end_bytes += len(payload) - keep
            payload = payload[:keep]
            if not payload:
                return
        half.advance(len(payload))
        if flow.ignored:
            self.ignored_bytes += len(payload)
            return
        self.delivered_bytes += len(payload)
        consumer = flow.consumer
        if consumer is None:
            consumer = self._open(flow)
        consumer.data(side, seq, ack, ts_ns, payload)

    def _open(self, flow: Flow) -> Consumer:
        consumer = flow.consumer = self._make_consumer(flow)
        if flow.state == HALF_OPEN:
            self._move(flow, OPEN)
        return consumer

    def _payload(self, flow: Flow, side: int, half: HalfStream, segment: Segment) -> None:
        """Payload that is not simply the next: before, ahead, cut short, or of a flow without a SYN."""
        payload = segment.payload
        seq = add(segment.seq, 1) if segment.flags & SYN else segment.seq
        if not half.synchronised:
            if not half.held_bytes and not half.searching and half.fin_pos < 0:
                half.origin_seq = half.next_seq = seq
            if half.searching and not half.held_bytes and not self._looks_like_start(payload):
                self.midstream_bytes += len(payload)
                return
            if half.searching and not half.held_bytes:
                half.origin_seq = half.next_seq = seq
        pos = half.position(seq)
        if pos > half.next_pos + WINDOW_BYTES or (not half.synchronised and pos < half.next_pos - WINDOW_BYTES):
            self.out_of_window_bytes += len(payload)
            return
        piece = Piece(pos, payload, segment.missing_bytes, segment.ack, segment.ts_ns)
        if half.synchronised:
            if piece.end <= half.next_pos:
                self.duplicate_bytes += len(payload)
                return
            if pos <= half.next_pos and not half.held_bytes:
                piece, trimmed = trim_front(piece, half.next_pos)
                self.duplicate_bytes += trimmed
                self._give(flow, side, half, piece)
                return
        self.held_bytes -= half.held_bytes
        self.duplicate_bytes += half.hold(piece)
        self.held_bytes += half.held_bytes
        if half.synchronised:
            self._drain(flow, side, half)
        if half.is_full:
            self._give_up(flow, side, half, segment.ts_ns)
        while self.held_bytes > self._max_held_bytes and self._relieve(segment.ts_ns):
            pass

    def _give(self, flow: Flow, side: int, half: HalfStream, piece: Piece) -> None:
        """A piece at exactly `next_pos`, with what was cut off behind it."""
        if piece.payload:
            self._deliver(flow, side, half, piece.payload, piece.ack, piece.ts_ns)
        if piece.missing_bytes:
            self.cut_bytes += piece.missing_bytes
            self._gap(flow, side, half, piece.missing_bytes, True, piece.ts_ns)

    def _gap(self, flow: Flow, side: int, half: HalfStream, missing: int, cut: bool, ts_ns: int) -> None:
        half.advance(missing)
        if not flow.ignored:
            (flow.consumer or self._open(flow)).gap(side, missing, cut, ts_ns)

    def _drain(self, flow: Flow, side: int, half: HalfStream) -> None:
        """Delivers what is held and now in order."""
        before = half.held_bytes
        ready = half.take_ready()
        self.held_bytes -= before - half.held_bytes
        for held in ready:
            if held.pos > half.next_pos:
                self.after_end_bytes += len(held.payload)  # the FIN came before it: nothing moves on from there
                continue
            piece, trimmed = trim_front(held, half.next_pos)
            self.duplicate_bytes += trimmed
            self._give(flow, side, half, piece)
        if half.fin_pos >= 0:
            self._check_end(flow, side, half)

    def _acknowledged(self, flow: Flow, peer: HalfStream, ack: int) -> None:
        pos = peer.position(ack)
        if peer.fin_pos >= 0:
            pos = min(pos, peer.fin_pos)  # a FIN counts as one byte of the sequence (RFC 9293 section 3.4)
        if peer.acked_pos < pos <= peer.next_pos + WINDOW_BYTES:
            peer.acked_pos = pos
            if pos > peer.next_pos:
                self._wait(flow)

    def _fin(self, flow: Flow, side: int, half: HalfStream, segment: Segment) -> None:
        if not half.synchronised and not half.held_bytes and half.fin_pos < 0:
            half.origin_seq = half.next_seq = segment.seq
        pos = half.position(segment.seq) + len(segment.payload) + segment.missing_bytes
        if half.fin_pos < 0 and half.next_pos <= pos <= half.next_pos + WINDOW_BYTES:
            half.fin_pos = pos
            half.acked_pos = min(half.acked_pos, pos)
        self._check_end(flow, side, half)
        if not half.is_finished:
            self._wait(flow)

    def _check_end(self, flow: Flow, side: int, half: HalfStream) -> None:
        if not half.is_finished or flow.ended & 1 << side:
            return
        flow.ended |= 1 << side
        self.held_bytes -= half.held_bytes
        for piece in half.take_all():
            self.after_end_bytes += len(piece.payload)
        if flow.consumer is not None and not flow.ignored:
            flow.consumer.end(side, flow.last_ns)
        if flow.ended == 3:
            self._close(flow)

    def _end_ignored(self, flow: Flow, side: int, segment: Segment) -> None:
        flow.ended |= 3 if segment.flags & RST else 1 << side
        if flow.ended == 3:
            self._close(flow)

    # ---- which flow

    def _flow_for(self, segment: Segment, first: Flow | None) -> Flow | None:
        """The flow of a segment that is not plainly the next of a known one; None when it starts nothing.

        Handles the first segment of a flow, the second VNI of a twin, SYN and RST, and reuse of ports.
        """
        flow = first
        while flow is not None and segment.vni not in flow.vnis:
            flow = flow.next_same
        if flow is None and self._dedup:
            flow = first
            while flow is not None and not is_twin(flow, segment):
                flow = flow.next_same
            if flow is not None:
                flow.vnis += (segment.vni,)
                self.flows_joined += 1
        flags = segment.flags
        if flags & RST:
            return self._reset(flow, segment)
        if flow is not None and is_reused(flow, segment):
            self.port_reuses += 1
            self._close(flow)
            self._remove(flow)
            flow = None
        if flow is not None and flow.state == CLOSED:
            # Late copies of a closed flow's segments are no news.
            self.duplicate_bytes += len(segment.payload)
            return None
        if flow is None:
            if not flags & SYN and not segment.payload:
                return None
            flow = self._add(segment)
        if flags & SYN:
            self._syn(flow, segment)
        return flow

    def _add(self, segment: Segment) -> Flow:
        while self.flow_count >= self._max_flows:
            self._evict()
        flow = Flow(segment.vni, segment.key, segment.ts_ns)
        first = self._flows.get(flow.key)
        if first is None:
            self._flows[flow.key] = self._flows[reverse_key(flow.key)] = flow
        else:
            flow.next_same, first.next_same = first.next_same, flow
        self.flow_count += 1
        self.flows_opened += 1
        self._idle[HALF_OPEN].add(flow)
        return flow

    def _syn(self, flow: Flow, segment: Segment) -> None:
        """SYN and SYN-ACK tell who is who, and both sides' first sequence numbers (RFC 9293 section 3.5)."""
        side = 0 if segment.key == flow.key else 1
        if flow.client == UNKNOWN:
            flow.client = 1 - side if segment.flags & ACK else side
        self._synchronise(flow, side, add(segment.seq, 1))
        if segment.flags & ACK:
            self._synchronise(flow, 1 - side, segment.ack)

    def _synchronise(self, flow: Flow, side: int, seq: int) -> None:
        half = flow.half(side)
        if half.synchronised:
            return
        self.held_bytes -= half.held_bytes
        before = sum(len(piece.payload) for piece in half.held)
        half.synchronise(seq)
        self.midstream_bytes += before - sum(len(piece.payload) for piece in half.held)
        self.held_bytes += half.held_bytes
        self._drain(flow, side, half)
        if half.has_hole:
            self._wait(flow)

    def _reset(self, flow: Flow | None, segment: Segment) -> Flow | None:
        """A reset ends the flow after the time for reordered data, if it lies in the window."""
        if flow is None or flow.state == CLOSED:
            self.after_end_bytes += len(segment.payload)  # a diagnostic message (RFC 1122 section 4.2.2.12)
            return None
        half = flow.half(0 if segment.key == flow.key else 1)
        if not half.synchronised or abs(diff(segment.seq, half.next_seq)) < WINDOW_BYTES:
            if flow.ignored:
                self._close(flow)
            else:
                flow.reset_ns = segment.ts_ns
                self._wait(flow)
        self.after_end_bytes += len(segment.payload)
        return None

    # ---- time

    def _wait(self, flow: Flow) -> None:
        """Something is open in this flow: it is looked at again, soon or later, when that has waited long enough."""
        soon = flow.reset_ns != 0
        since_ns = flow.reset_ns or self.now_ns
        for half in flow.halves:
            if half.has_hole:
                if half.waits_at != half.next_pos:
                    half.waits_at = half.next_pos
                    half.waits_since_ns = self.now_ns
                since_ns = min(since_ns, half.waits_since_ns)
                if not half.synchronised or half.acked_pos > half.next_pos:
                    soon = True
        if soon:
            if flow not in self._soon:
                self._soon[flow] = since_ns
                self._later.pop(flow, None)
        elif flow not in self._soon and flow not in self._later:
            self._later[flow] = since_ns

    def advance(self, now_ns: int) -> None:
        """Looks at deadlines. Call it when no segment came for TICK_NS; segments call it themselves."""
        if now_ns > self.now_ns:
            self.now_ns = now_ns
        self._next_tick_ns = self.now_ns + TICK_NS
        for queue, wait_ns in ((self._soon, REORDER_WAIT_NS), (self._later, HOLE_WAIT_NS)):
            for _ in range(len(queue)):
                flow = next(iter(queue))
                if self.now_ns - queue[flow] < wait_ns:
                    break
                del queue[flow]
                if flow.state < CLOSED:
                    self._resolve(flow, self.now_ns, forced=False)
        for state, idle_ns in ((HALF_OPEN, HALF_OPEN_NS), (OPEN, IDLE_NS), (CLOSED, CLOSED_NS)):
            idle = self._idle[state]
            while (idlest := idle.idle_since(self.now_ns - idle_ns)) is not None:
                self.flows_expired += state != CLOSED
                self._close(idlest)
                self._remove(idlest)

    def _resolve(self, flow: Flow, now_ns: int, forced: bool) -> None:
        """What has waited long enough (`forced`: all that waits) is over: flows begin without a SYN, holes are
        declared lost, what was reset is closed. The rest waits on.
        """
        for side in (0, 1):
            half = flow.half(side)
            if not half.has_hole or half.waits_at != half.next_pos:
                continue
            waited_ns = now_ns - half.waits_since_ns
            if not half.synchronised:
                if forced or waited_ns >= REORDER_WAIT_NS:
                    self._begin_midstream(flow, side, half)
                continue
            is_known_lost = half.acked_pos > half.next_pos or flow.reset_ns != 0
            if forced or waited_ns >= (REORDER_WAIT_NS if is_known_lost else HOLE_WAIT_NS):
                self._skip_hole(flow, side, half, now_ns)
        if flow.state >= CLOSED:
            return
        if flow.reset_ns and (forced or now_ns - flow.reset_ns >= REORDER_WAIT_NS):
            self._close(flow)
        elif flow.reset_ns or flow.half(0).has_hole or flow.half(1).has_hole:
            self._wait(flow)

    def _begin_midstream(self, flow: Flow, side: int, half: HalfStream) -> None:
        """No SYN came: the earliest held segment that looks like the start of a message is the first byte."""
        half.searching = True
        # Positions count from the segment that came first; one that belongs before it has a negative position.
        start: int | None = None
        for piece in half.held:
            if self._looks_like_start(piece.payload):
                start = piece.pos
                break
        if start is None and half.fin_pos >= 0:
            start = half.fin_pos
        if start is None:
            self._drop_held(half)
            return
        half.midstream = True
        if not flow.midstream:
            flow.midstream = True
            self.flows_midstream += 1
        self._synchronise(flow, side, add(half.origin_seq, start))
        self._check_end(flow, side, half)

    def _drop_held(self, half: HalfStream) -> None:
        self.held_bytes -= half.held_bytes
        half.waits_at = None
        for piece in half.take_all():
            self.midstream_bytes += len(piece.payload)

    def _skip_hole(self, flow: Flow, side: int, half: HalfStream, now_ns: int) -> None:
        """What lies between the expected byte and the next known one is lost."""
        end = half.hole_end()
        if end - half.next_pos == 1 and not half.held_bytes and half.fin_pos < 0:
            half.acked_pos = half.next_pos  # a FIN that was lost counts as one acknowledged byte: nothing is missing
            return
        missing = end - half.next_pos
        if missing > 0:
            self.lost_bytes += missing
            self.holes_lost += 1
            ts_ns = half.held[0].ts_ns if half.held else now_ns
            self._gap(flow, side, half, missing, False, ts_ns)
        self._drain(flow, side, half)

    def _give_up(self, flow: Flow, side: int, half: HalfStream, ts_ns: int) -> None:
        """This direction holds more than its bound: what it waits for is declared lost now."""
        if not half.synchronised:
            self._begin_midstream(flow, side, half)
        elif half.has_hole:
            self._skip_hole(flow, side, half, ts_ns)

    def _relieve(self, ts_ns: int) -> bool:
        """All flows together hold more than the bound: the one that waits longest gives up. False: none waits."""
        for queue in (self._soon, self._later):
            for flow in queue:
                del queue[flow]
                if flow.state < CLOSED:
                    self._resolve(flow, ts_ns, forced=True)
                return True
        return False

    # ---- the end of flows

    def _close(self, flow: Flow) -> None:
        """The flow is over: what is held is let go, the consumer is told; the flow lingers for late copies."""
        if flow.state >= CLOSED:
            return
        for half in flow.halves:
            self.held_bytes -= half.held_bytes
            for piece in half.take_all():
                self.evicted_bytes += len(piece.payload)
        self._soon.pop(flow, None)
        self._later.pop(flow, None)
        self._move(flow, CLOSED)
        consumer, flow.consumer = flow.consumer, None
        if consumer is not None:
            consumer.closed(flow.last_ns)

    def _move(self, flow: Flow, state: int) -> None:
        before, flow.state = flow.state, state
        self._idle[before].left()
        self._idle[state].add(flow)

    def _remove(self, flow: Flow) -> None:
        if flow.state == REMOVED:
            return
        before, flow.state = flow.state, REMOVED
        self._idle[before].left()
        self.flow_count -= 1
        first = self._flows[flow.key]
        if first is not flow:
            while first.next_same is not None and first.next_same is not flow:
                first = first.next_same
            first.next_same = flow.next_same
        elif flow.next_same is not None:
            self._flows[flow.key] = self._flows[reverse_key(flow.key)] = flow.next_same
        else:
            del self._flows[flow.key]
            self._flows.pop(reverse_key(flow.key), None)  # one key only, where both ends are the same

    def _evict(self) -> None:
        """Makes room for one flow."""
        half_open = len(self._idle[HALF_OPEN])
        order = (CLOSED, HALF_OPEN, OPEN) if half_open * 2 >= self._max_flows else (CLOSED, OPEN, HALF_OPEN)
        for state in order:
            flow = self._idle[state].idlest()
            if flow is not None:
                self.flows_evicted += state != CLOSED
                self._close(flow)
                self._remove(flow)
                return

    def finish(self) -> None:
        """No more segments will come: every wait is over, then every flow."""
        while self._soon or self._later:
            for queue in (self._soon, self._later):
                for flow in list(queue):
                    queue.pop(flow, None)
                    if flow.state < CLOSED:
                        self._resolve(flow, self.now_ns, forced=True)
        while self._flows:
            flow = next(iter(self._flows.values()))
            self._close(flow)
            self._remove(flow)
