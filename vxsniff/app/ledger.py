"""The ledger: what came in at each stage, and what became of it. Every equation closes.

    frames   == decoded + each reason for not
    payload  == delivered in order + duplicate + not HTTP + ... + held
    requests == answered + unanswered + response lost + open
    responses == answering + orphans + ambiguous + open
    calls    == shipped + stopped by rule + sampled out + ...
    deliveries == accepted + dead + dropped + ... + spooled + waiting

Beside the equations stand facts: what the kernel dropped, bytes that never came, flows, how calls were imperfect.
"""

from __future__ import annotations

from typing import NamedTuple

from vxsniff.app.pipeline import Pipeline
from vxsniff.call import policy
from vxsniff.delivery.deliverer import Deliverer
from vxsniff.delivery.queue import BatchQueue, QueueCounts
from vxsniff.http import body
from vxsniff.wire import reasons


class Entry(NamedTuple):
    """One number. `is_open` ones go down again: what still waits for its end."""

    name: str
    value: int
    meaning: str
    is_open: bool = False


class Equation(NamedTuple):
    """What came in, and the parts that it ended as."""

    name: str
    total: int
    meaning: str
    parts: tuple[Entry, ...]

    @property
    def closes(self) -> bool:
        return self.total == sum(part.value for part in self.parts)


class Ledger(NamedTuple):
    """One consistent look."""

    equations: tuple[Equation, ...]
    facts: tuple[Entry, ...]

    @property
    def closes(self) -> bool:
        return all(equation.closes for equation in self.equations)

    def as_text(self) -> str:
        """For people: every total, and each part and fact that is not zero."""
        lines = ["ledger"]
        width = max((len(f"{equation.total:,}") for equation in self.equations), default=0) + 2
        for equation in self.equations:
            lines.append(f"  {equation.name:<22}{equation.total:>{width},}  {equation.meaning}")
            lines += _rows("    ", 20, equation.parts, width)
        lines += _rows("  ", 22, tuple(fact for fact in self.facts if not fact.is_open), width)
        return "\n".join(lines)


def _rows(indent: str, name_width: int, entries: tuple[Entry, ...], width: int) -> list[str]:
    return [f"{indent}{e.name:<{name_width}}{e.value:>{width},}  {e.meaning}" for e in entries if e.value]


def kernel_dropped(count: int) -> Entry:
    return Entry("kernel_dropped", count, "datagrams lost before vxsniff: the receive buffer was full")


def switches(
    is_on: bool, switched: int, reloads: int, refused: int, workers: int = 1, restarts: int = 0
) -> tuple[Entry, ...]:
    """What was done to a running vxsniff."""
    return (
        Entry("capturing", int(is_on), "1 while packets are taken", is_open=True),
        Entry("workers", workers, "processes that capture", is_open=True),
        Entry("worker_restarts", restarts, "times that a worker died and was started again"),
        Entry("switches", switched, "times that capturing was switched"),
        Entry("reloads", reloads, "times that settings were read anew"),
        Entry("reloads_refused", refused, "times that new settings were wrong"),
    )


def take(
    pipeline: Pipeline,
    queue: BatchQueue | None,
    dropped: int = 0,
    deliverer: Deliverer | None = None,
    more: tuple[Entry, ...] = (),
) -> Ledger:
    """Reads every counter; `dropped` is what the kernel lost, `more` are facts besides. The caller sees to it that the
    pipeline stands still meanwhile.
    """
    decoder, table, http, calls = pipeline.decoder, pipeline.table, pipeline.http.counters, pipeline.counters
    record = pipeline.record_counters
    frames = Equation(
        "frames",
        decoder.frames,
        "frames that came in",
        (
            Entry("decoded", decoder.segments, "TCP segments"),
            *(
                Entry(name, count, meaning)
                for name, count, meaning in zip(reasons.NAMES, decoder.reasons, reasons.MEANINGS, strict=True)
            ),
        ),
    )
    payload = Equation(
        "payload_bytes",
        table.payload_bytes,
        "bytes of TCP payload that came in",
        (
            Entry("delivered", table.delivered_bytes, "given on in order"),
            Entry("duplicate", table.duplicate_bytes, "seen before: retransmissions, a second mirror"),
            Entry("ignored", table.ignored_bytes, "of connections that are not HTTP/1"),
            Entry("midstream", table.midstream_bytes, "before the first message of a connection picked up midway"),
            Entry("out_of_window", table.out_of_window_bytes, "too far from what was expected"),
            Entry("after_end", table.after_end_bytes, "behind the connection's end"),
            Entry("evicted", table.evicted_bytes, "held behind a hole when the connection ended or was let go"),
            Entry("held", table.held_payload_bytes, "behind a hole, waiting", is_open=True),
        ),
    )
    requests = Equation(
        "requests",
        http.requests,
        "HTTP requests",
        (
            Entry("answered", http.exchanges, "paired with their response: a call"),
            Entry("unanswered", http.unanswered, "no response came before the connection or the wait ended"),
            Entry("response_lost", http.responses_lost, "passed over: their response was lost on the way"),
            Entry("open", pipeline.http.open_requests, "waiting", is_open=True),
        ),
    )
    responses = Equation(
        "responses",
        http.responses,
        "HTTP responses (without 1xx)",
        (
            Entry("answering", http.exchanges, "paired with their request: a call"),
            Entry("orphan", http.orphans, "their request was not captured"),
            Entry("ambiguous", http.ambiguous, "after a loss nothing proved which request they answer"),
            Entry("open", pipeline.http.open_responses, "waiting", is_open=True),
        ),
    )
    call = Equation(
        "calls",
        calls.calls,
        "API calls",
        (
            Entry("shipped", calls.shipped, "handed to delivery"),
            Entry("stopped", calls.dropped[policy.STOPPED], "by a stop rule"),
            Entry("sampled_out", calls.dropped[policy.SAMPLED_OUT], "by the sample rule"),
            Entry("emptied", calls.dropped[policy.EMPTIED], "the rules left nothing of them"),
            Entry("disabled", calls.disabled, "delivery is switched off"),
            Entry("own", calls.own, "deliveries of a vxsniff: never calls, or they would breed calls"),
            Entry("failed", calls.failed, "an error of vxsniff's own: please report it"),
        ),
    )
    counts = queue.counts() if queue is not None else QueueCounts()
    keeper = deliverer.keeper if deliverer is not None else None
    deliveries = Equation(
        "deliveries",
        calls.shipped + counts.found + counts.brought_back,
        "calls to deliver: shipped, and those that the spool had",
        (
            Entry("accepted", counts.accepted, "taken by the other end"),
            Entry("dead", counts.dead, "refused for good by the other end"),
            Entry("dropped", counts.dropped, "given up: queue or spool was full, or the end came"),
            Entry("purged", counts.purged, "deleted from the spool by `vxsniff spool purge`"),
            Entry("set_aside", counts.set_aside, "in a spool file that was damaged and set aside"),
            Entry("spooled", counts.spooled, "on disk, for when the other end can take them", is_open=True),
            Entry("waiting", counts.waiting, "in memory", is_open=True),
        ),
    )
    decoded_bodies = dict(zip(body.OUTCOMES, record.bodies, strict=True))
    facts = (
        kernel_dropped(dropped),
        Entry("lost_bytes", table.lost_bytes, "TCP bytes that never came: lost by the mirror or on the way"),
        Entry("cut_bytes", table.cut_bytes, "TCP bytes cut off by the mirror's packet length"),
        Entry("holes", table.holes_lost, "holes that were declared lost"),
        Entry("skipped_bytes", http.skipped_bytes, "given on in order, but no message was found in them"),
        Entry("flows", table.flows_opened, "connections"),
        Entry("flows_midstream", table.flows_midstream, "connections picked up midway"),
        Entry("flows_joined", table.flows_joined, "connections mirrored a second time, joined"),
        Entry("flows_tls", http.tls_flows, "connections with TLS: not decrypted"),
        Entry("flows_http2", http.http2_flows, "connections with HTTP/2: not decoded in this version"),
        Entry("flows_other", http.other_flows, "connections with something else"),
        Entry("flows_upgraded", http.upgraded_flows, "connections that left HTTP (WebSocket, CONNECT)"),
        Entry("flows_evicted", table.flows_evicted, "connections let go for want of memory"),
        Entry("flows_expired", table.flows_expired, "connections let go because they were idle"),
        Entry("fragments_joined", decoder.fragments.joined, "fragmented IP packets put together"),
        Entry("informational", http.informational, "1xx responses"),
        Entry("calls_late", http.late, "calls whose response was seen before the request"),
        Entry("heads_invalid", http.invalid_heads, "what should have been a head was none"),
        Entry("memory_refused", pipeline.budget.refused, "times that the memory limit left bytes out"),
        Entry("bodies_damaged", record.bodies_damaged, "bodies left out: bytes of them never came"),
        Entry("bodies_limited", record.bodies_limited, "bodies longer than the limit: the rest left out"),
        Entry("bodies_binary", decoded_bodies["binary"], "bodies left out: not text"),
        Entry("bodies_unknown_coding", decoded_bodies["unknown_coding"], "bodies left out: unknown coding"),
        Entry("bodies_damaged_coding", decoded_bodies["damaged_coding"], "bodies left out: the coding is broken"),
        Entry("params_left_out", record.params_left_out, "parameters beyond a thousand a call"),
        Entry("errors", pipeline.segments_failed, "errors of vxsniff's own: please report them"),
        Entry("retries", deliverer.retries if deliverer else 0, "deliveries that were tried again"),
        Entry("spool_found", counts.found, "calls that were in the spool at the start"),
        Entry("spool_brought_back", counts.brought_back, "calls of dead letters brought back by `vxsniff spool retry`"),
        Entry("spool_forgotten", keeper.forgotten if keeper else 0, "calls of dead letters deleted for want of room"),
        Entry("spool_failures", keeper.failures if keeper else 0, "times that the spool could not be used"),
        Entry("queue_bytes", counts.waiting_bytes, "bytes of calls that wait in memory", is_open=True),
        Entry("queue_limit_bytes", queue.limit_bytes if queue else 0, "and their limit", is_open=True),
        Entry("spool_bytes", keeper.used_bytes if keeper else 0, "bytes of the spool that are in use", is_open=True),
        Entry("spool_limit_bytes", keeper.limit_bytes if keeper else 0, "and their limit", is_open=True),
        *more,
    )
    return Ledger((frames, payload, requests, responses, call, deliveries), facts)
