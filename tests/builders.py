"""Puts packets together for tests, and runs them through the whole pipeline."""

import random
import struct
from ipaddress import ip_address

from vxsniff.app.pipeline import Pipeline, ndjson_format
from vxsniff.call.rules import parse_rules
from vxsniff.demo.frames import CLIENT, SERVER, Conversation, Endpoint, in_vxlan
from vxsniff.wire.vxlan import VniFilter

__all__ = ["CLIENT", "SERVER", "Conversation", "Endpoint", "in_vxlan"]

EPOCH_NS = 1_700_000_000_000_000_000
MS = 1_000_000
SECOND = 1_000_000_000

CLIENT_END = Endpoint("10.0.0.1", 40000)
SERVER_END = Endpoint("10.0.0.2", 80)


def tcp(sport=40000, dport=80, seq=1, ack=1, flags=0x18, payload=b"", options=b"") -> bytes:
    """A TCP segment (RFC 9293 section 3.1); options in whole words. Checksum 0: nobody looks."""
    words = 5 + len(options) // 4
    return struct.pack("!HHIIBBHHH", sport, dport, seq, ack, words << 4, flags, 65535, 0, 0) + options + payload


def udp(payload, sport=50000, dport=4789) -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def ipv4(body, src="10.0.0.1", dst="10.0.0.2", proto=6, options=b"", fragment=0, ident=7, total=None) -> bytes:
    """`fragment` is the whole 16-bit word: flags and offset in units of 8 bytes."""
    header_bytes = 20 + len(options)
    total = header_bytes + len(body) if total is None else total
    head = struct.pack("!BBHHHBBH", 0x40 | header_bytes // 4, 0, total, ident, fragment, 64, proto, 0)
    return head + ip_address(src).packed + ip_address(dst).packed + options + body


def ipv6(body, src="fd00::1", dst="fd00::2", following=6, length=None) -> bytes:
    length = len(body) if length is None else length
    return struct.pack("!IHBB", 6 << 28, length, following, 64) + ip_address(src).packed + ip_address(dst).packed + body


def ethernet(body, kind=0x0800, tags=()) -> bytes:
    """`tags` are pairs of TPID and TCI."""
    return b"\x02" * 12 + b"".join(struct.pack("!HH", *tag) for tag in tags) + struct.pack("!H", kind) + body


class Play:
    """A pipeline that keeps what it ships, without call ids; errors of the pipeline's own are raised at once."""

    def __init__(self, rules="include debug", vnis=None, **options) -> None:
        self.lines: list[bytes] = []
        self.now_ns = EPOCH_NS
        options.setdefault("call_ids", False)
        self.pipeline = Pipeline(
            vnis or VniFilter(),
            parse_rules(rules),
            self.lines.append,
            format_call=ndjson_format("test"),
            draw=lambda: 50,
            on_error=_raise,
            **options,
        )

    def frames(self, frames, vni=123, step_ns=MS) -> "Play":
        return self.datagrams((in_vxlan(frame, vni) for frame in frames), step_ns)

    def datagrams(self, datagrams, step_ns=MS) -> "Play":
        for datagram in datagrams:
            self.pipeline.vxlan_datagram(datagram, self.now_ns)
            self.now_ns += step_ns
        return self

    def wait(self, seconds: float) -> "Play":
        end_ns = self.now_ns + int(seconds * SECOND)
        while self.now_ns < end_ns:
            self.now_ns = min(end_ns, self.now_ns + 50 * MS)
            self.pipeline.advance(self.now_ns)
        return self

    def finish(self) -> list[dict[str, str]]:
        self.pipeline.finish()
        return self.calls

    @property
    def calls(self) -> list[dict[str, str]]:
        """What was shipped, without the times; of repeated names the values are joined with `|`."""
        import json

        shipped = []
        for line in self.lines:
            fields: dict[str, str] = {}
            for name, value in json.loads(line):
                if name not in ("now", "interval", "host"):
                    fields[name] = f"{fields[name]}|{value}" if name in fields else value
            shipped.append(fields)
        return shipped


def _raise(error: Exception) -> None:
    raise error


def get(path: str, *headers: str, host="shop.example") -> bytes:
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "")).encode()


def post(path: str, body: bytes, *headers: str, method="POST") -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "Host: shop.example", f"Content-Length: {len(body)}", *headers, "")
    return "".join(f"{line}\r\n" for line in lines).encode() + body


def answer(body: bytes = b"", *headers: str, status: str = "200 OK", content_type="text/plain") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"Content-Type: {content_type}"] if body else []
    return "".join(f"{line}\r\n" for line in (*lines, *headers, "")).encode() + body


def talk(*turns, client=CLIENT_END, server=SERVER_END, isns=(1000, 5000), close=True, mss=1460) -> list[bytes]:
    """Frames of a connection: each turn is a side and what it sends."""
    conversation = Conversation(client, server, isns, mss)
    frames = conversation.open()
    for side, data in turns:
        frames += conversation.send(side, data)
    if close:
        frames += conversation.close(CLIENT) + conversation.close(SERVER)
    return frames


def shuffled(frames, seed: int, window: int):
    """The same frames, each at most about `window` places from its own."""
    draw = random.Random(seed)
    keyed = [(i + draw.uniform(0, window), frame) for i, frame in enumerate(frames)]
    return [frame for _, frame in sorted(keyed, key=lambda pair: pair[0])]
