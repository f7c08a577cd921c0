"""Frames -> what kind of traffic this is, whatever the filters make of it. For a few seconds beside the pipeline.

Everything is decoded a second time, without the VNI and port filters, and only counted: flows by what they speak and by
which directions are there. Bounds: MAX_FLOWS flows, MAX_NAMES VNIs and ports; what comes beyond is left out.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from vxsniff.doctor.observation import Observation
from vxsniff.http import sniff
from vxsniff.wire import reasons
from vxsniff.wire.decode import Decoder
from vxsniff.wire.segment import ACK, SYN, Segment, reverse_key
from vxsniff.wire.vxlan import VniFilter

MAX_FLOWS: Final = 20_000
MAX_NAMES: Final = 1000

_KINDS: Final = {sniff.REQUEST: "http", sniff.RESPONSE: "http", sniff.TLS: "tls", sniff.HTTP2: "http2"}


class _Flow:
    """A connection in scope. Side 0 is the sender of the packet that was seen first."""

    __slots__ = ("client", "has_payload", "key", "kind", "packets", "syn", "vnis")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.packets = [0, 0]
        self.vnis: set[int] = set()
        self.syn = False
        self.client = -1
        self.kind = ""
        self.has_payload = False


class Survey:
    """Counts; `result` tells. `vnis` and `ports` say what is in scope of the capture."""

    def __init__(self, vnis: VniFilter, ports: frozenset[int]) -> None:
        self._decoder = Decoder(VniFilter())
        self._vnis = vnis
        self._ports = ports
        self._by_vni: Counter[int] = Counter()
        self._by_port: Counter[int] = Counter()
        self._flows: dict[bytes, _Flow] = {}
        self._in_scope = 0
        self._cut_packets = 0
        self._longest_cut_bytes = 0

    def vxlan_datagram(self, data: bytes, ts_ns: int) -> None:
        self._segment(self._decoder.vxlan_datagram(data, ts_ns), len(data))

    def geneve_datagram(self, data: bytes, ts_ns: int) -> None:
        self._segment(self._decoder.geneve_datagram(data, ts_ns), len(data))

    def frame(self, data: bytes, link_type: int, ts_ns: int) -> None:
        self._segment(self._decoder.frame(data, link_type, ts_ns), len(data))

    def _segment(self, segment: Segment | None, frame_bytes: int) -> None:
        if segment is None:
            return
        if segment.vni in self._by_vni or len(self._by_vni) < MAX_NAMES:
            self._by_vni[segment.vni] += 1
        if not self._vnis.passes(segment.vni):
            return
        flow = self._flows.get(segment.key)
        side = 0
        if flow is None:
            flow = self._flows.get(reverse_key(segment.key))
            side = 1
        if flow is None:
            source, destination = (int.from_bytes(end, "big") for end in (segment.key[-4:-2], segment.key[-2:]))
            if self._ports and not (source in self._ports or destination in self._ports):
                self._count_port(min(source, destination))
                return
            if len(self._flows) >= MAX_FLOWS:
                return
            flow = self._flows[segment.key] = _Flow(segment.key)
            side = 0
        self._in_scope += 1
        flow.packets[side] += 1
        flow.vnis.add(segment.vni)
        if segment.missing_bytes:
            self._cut_packets += 1
            self._longest_cut_bytes = max(self._longest_cut_bytes, frame_bytes)
        if segment.flags & SYN:
            flow.syn = True
            flow.client = 1 - side if segment.flags & ACK else side
        if segment.payload:
            self._payload(flow, side, segment.payload)

    def _payload(self, flow: _Flow, side: int, payload: bytes) -> None:
        if flow.kind or (flow.has_payload and not sniff.looks_like_start(payload)):
            return
        is_first = flow.syn and not flow.has_payload
        flow.has_payload = True
        if is_first or sniff.looks_like_start(payload):
            what = sniff.classify(payload.lstrip(b"\r\n"))
            flow.kind = _KINDS.get(what, "")
            if what == sniff.REQUEST:
                flow.client = side
            elif what == sniff.RESPONSE:
                flow.client = 1 - side

    def _count_port(self, port: int) -> None:
        if port in self._by_port or len(self._by_port) < MAX_NAMES:
            self._by_port[port] += 1

    def result(self) -> Observation:
        """All of it."""
        kinds: Counter[str] = Counter()
        one_way: Counter[str] = Counter()
        for flow in self._flows.values():
            kinds[flow.kind or ("other" if flow.has_payload else "quiet")] += 1
            kinds["no_syn"] += not flow.syn
            kinds["mirrored_twice"] += len(flow.vnis) > 1
            if flow.client >= 0:
                if not flow.packets[1 - flow.client]:
                    one_way["requests_only"] += 1
                elif not flow.packets[flow.client]:
                    one_way["responses_only"] += 1
                else:
                    one_way["both_ways"] += 1
                server = flow.key if flow.client == 1 else reverse_key(flow.key)
                self._count_port(int.from_bytes(server[-4:-2], "big"))
        return {
            "frames": self._decoder.frames,
            "segments": self._decoder.segments,
            "reasons": {n: c for n, c in zip(reasons.NAMES, self._decoder.reasons, strict=True) if c},
            "vnis": {str(vni): count for vni, count in self._by_vni.most_common(20)},
            "ports": {str(port): count for port, count in self._by_port.most_common(10)},
            "in_scope": self._in_scope,
            "cut_packets": self._cut_packets,
            "longest_cut_bytes": self._longest_cut_bytes,
            "flows": {"seen": len(self._flows), **kinds, **one_way},
        }
