"""The worst traffic that we can think of, at a pipeline in a process of its own: `worst_traffic.py NAME LIMIT_MIB`.

Prints as JSON what the process peaked at, and whether the ledger closes. Frames are made by hand: a million of them in
seconds.
"""

import json
import struct
import sys

from tests.e2e.program import memory_mib
from vxsniff.app import ledger
from vxsniff.app.pipeline import Pipeline, ndjson_format
from vxsniff.call.rules import parse_rules
from vxsniff.wire.vxlan import VniFilter

SYN, SYN_ACK, ACK, FIN_ACK = 0x02, 0x12, 0x18, 0x11
CLIENT = bytes([10, 0, 0, 1])
SERVER = bytes([10, 0, 0, 2])
_VXLAN_ETHERNET = struct.pack("!B3xI", 8, 123 << 8) + b"\x02" * 12 + b"\x08\x00"
_IP_TCP = struct.Struct("!BBHHHBBH4s4sHHIIBBHHH")


def packet(sport, seq, ack, flags, payload=b"", source=CLIENT, destination=SERVER, dport=80):
    """A mirrored TCP segment, as a VXLAN datagram."""
    total = 40 + len(payload)
    head = _IP_TCP.pack(
        *(0x45, 0, total, 7, 0, 64, 6, 0, source, destination),
        *(sport, dport, seq % 2**32, ack % 2**32, 0x50, flags, 65535, 0, 0),
    )
    return _VXLAN_ETHERNET + head + payload


def address(number):
    return struct.pack("!I", 0x0A000000 + number // 60000 + 256)


def client(number):
    """Keywords of packets of the numbered connection, from its client."""
    return {"sport": 1024 + number % 60000, "source": address(number)}


def opened(number):
    yield packet(**client(number), seq=0, ack=0, flags=SYN)
    end = client(number)
    yield packet(80, 0, 1, SYN_ACK, source=SERVER, destination=end["source"], dport=end["sport"])


def from_server(number, seq, ack, payload):
    end = client(number)
    return packet(80, seq, ack, ACK, payload, source=SERVER, destination=end["source"], dport=end["sport"])


def syn_flood():
    for number in range(400_000):
        yield packet(**client(number), seq=number, ack=0, flags=SYN)


def million_half_open():
    for number in range(1_000_000):
        yield from opened(number)


def endless_headers():
    for number in range(3000):
        yield from opened(number)
    for step in range(100):
        for number in range(3000):
            data = b"GET / HTTP/1.1\r\n" if step == 0 else b"X-%04d: " % step + b"h" * 1390 + b"\r\n"
            seq = 1 if step == 0 else 17 + (step - 1) * 1400
            yield packet(**client(number), seq=seq, ack=1, flags=ACK, payload=data)


def endless_chunked():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    for number in range(1500):
        yield from opened(number)
        yield packet(**client(number), seq=1, ack=1, flags=ACK, payload=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        yield from_server(number, 1, 30, head)
    for step in range(250):
        for number in range(1500):
            yield from_server(number, 1 + len(head) + step * 1407, 30, b"578\r\n" + b"c" * 1400 + b"\r\n")


def fragments():
    for number in range(300_000):
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1420, number % 65536, 0x2000, 64, 6, 0, address(number), SERVER)
        yield _VXLAN_ETHERNET + head + b"f" * 1400


def tiny_fragments():
    for number in range(300_000):
        offset = number % 1000 + 1
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 28, number // 1000, 0x2000 | offset, 64, 6, 0, address(number // 7000), SERVER
        )
        yield _VXLAN_ETHERNET + head + b"f" * 8


def byte_by_byte():
    """Every second byte is missing: nothing can be given on."""
    for number in range(200):
        yield from opened(number)
    for step in range(2000):
        for number in range(200):
            yield packet(**client(number), seq=2 + step * 2, ack=1, flags=ACK, payload=b"b")


def window_edge():
    """Each connection holds what lies as far ahead as is allowed, backwards."""
    for number in range(400):
        yield from opened(number)
    for step in range(1000):
        for number in range(400):
            yield packet(**client(number), seq=8_380_000 - step * 1400, ack=1, flags=ACK, payload=b"w" * 1400)


def midstream():
    for number in range(400_000):
        yield packet(**client(number), seq=number, ack=1, flags=ACK, payload=b"m" * 1400)


def unanswered():
    request = (
        b"POST /unanswered HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nX: " + b"u" * 300 + b"\r\n\r\n" + b"b" * 1000
    )
    for number in range(2000):
        yield from opened(number)
    for step in range(150):
        for number in range(2000):
            yield packet(**client(number), seq=1 + step * len(request), ack=1, flags=ACK, payload=request)


def answers_without_questions():
    """Responses wait for requests that never come, with all that follows them."""
    for number in range(3000):
        yield from opened(number)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
    for step in range(100):
        for number in range(3000):
            data = head if step == 0 else b"a" * 1400
            seq = 1 if step == 0 else 1 + len(head) + (step - 1) * 1400
            yield from_server(number, seq, 1, data)


def names():
    """Header, parameter and cookie names that never repeat."""
    for number in range(3000):
        yield from opened(number)
        fields = b"".join(b"X-%d-%d: v\r\n" % (number, i) for i in range(60))
        query = b"&".join(b"p%d-%d=1" % (number, i) for i in range(20))
        request = b"GET /?" + query + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"
        yield packet(**client(number), seq=1, ack=1, flags=ACK, payload=request)
        yield from_server(number, 1, 1 + len(request), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def short_lived():
    """Connections that come and go, while one stays open that was there before them."""
    request, answer = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"
    ends = (1 + len(request), 1 + len(answer))
    yield from opened(0)
    yield packet(**client(0), seq=1, ack=1, flags=ACK, payload=request)
    for number in range(1, 260_000):
        end = client(number)
        yield from opened(number)
        yield packet(**end, seq=1, ack=1, flags=ACK, payload=request)
        yield from_server(number, 1, ends[0], answer)
        yield packet(**end, seq=ends[0], ack=ends[1], flags=FIN_ACK)
        yield packet(80, ends[1], ends[0] + 1, FIN_ACK, source=SERVER, destination=end["source"], dport=end["sport"])


SCENARIOS = {
    function.__name__: function
    for function in (
        *(syn_flood, million_half_open, endless_headers, endless_chunked, fragments, tiny_fragments, byte_by_byte),
        *(window_edge, midstream, unanswered, answers_without_questions, names, short_lived),
    )
}


STEPS_NS = {"short_lived": 500_000}
"""The time between packets: half a million a second, where little has the time to expire, unless that is the point."""


def main() -> None:
    name, limit_mib = sys.argv[1], int(sys.argv[2])
    errors: list[str] = []
    pipeline = Pipeline(
        VniFilter(),
        parse_rules("include standard"),
        lambda line: None,
        format_call=ndjson_format("test"),
        draw=lambda: 0,
        on_error=lambda error: errors.append(repr(error)),
        memory_limit_bytes=limit_mib << 20,
    )
    now_ns = 1_700_000_000_000_000_000
    for datagram in SCENARIOS[name]():
        now_ns += STEPS_NS.get(name, 2000)
        pipeline.vxlan_datagram(datagram, now_ns)
    taken = ledger.take(pipeline, None)
    flows = pipeline.table.flow_count
    pipeline.finish()
    print(
        json.dumps(
            {
                # Not getrusage: its ru_maxrss begins with the peak of the process that forked us.
                "peak_mib": memory_mib("VmHWM"),
                "open_equations": [equation.name for equation in taken.equations[:-1] if not equation.closes],
                "errors": errors[:3],
                "flows": flows,
                "left": [pipeline.budget.used_bytes, pipeline.table.held_bytes, pipeline.table.flow_count],
            }
        )
    )


if __name__ == "__main__":
    main()
