"""Invariant: what two ends say gives the same calls however it is cut into segments and repeated; and under any loss,
reordering and change of headers nothing is raised, every sum of the ledger closes, and all memory is given back.

The first holds where every message is where HTTP says: behind what is no HTTP, or where a body may have been left out,
a message is looked for at the beginning of segments.
"""

from __future__ import annotations

import json

from fuzz.reader import Reader
from tests.builders import CLIENT, MS, SERVER, Play
from tests.property.worst_traffic import CLIENT as CLIENT_ADDRESS
from tests.property.worst_traffic import SERVER as SERVER_ADDRESS
from tests.property.worst_traffic import packet
from vxsniff.app import ledger
from vxsniff.wire.segment import ACK, FIN, SYN

PIECES = (
    b"GET / HTTP/1.1\r\n",
    b"POST /x?a=b HTTP/1.1\r\n",
    b"HEAD / HTTP/1.0\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 204 \r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.0 200\r\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Type: application/x-www-form-urlencoded\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: x\r\nConnection: upgrade\r\n",
    b"\r\n",
    b"\n",
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"\x16\x03\x01\0\5hello",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b" obs-fold\r\n",
)
MAX_TURNS = 16
MSS = (1, 2, 7, 100, 1460)
STEPS_NS = (0, MS, 300 * MS, 5000 * MS)


def one_input(data: bytes) -> None:
    reader = Reader(data)
    options = {"body_limit_bytes": reader.choice((3, 64, 4096)), "dedup": bool(reader.number(2))}
    mss = reader.choice(MSS)
    closes = reader.number(3)
    turns = [_turn(reader) for _ in range(reader.number(MAX_TURNS))]

    in_large = _played(_datagrams(turns, 1460, closes), options)
    in_small = _played([datagram for datagram in _datagrams(turns, mss, closes) for _ in range(2)], options)
    said = b"".join(data for _, data in turns).lower()
    if not (b"expect" in said or b"upgrade" in said or _searched(in_large) or _searched(in_small)):
        assert in_small.calls == in_large.calls, (turns, mss)

    play = Play(rules="include standard", memory_limit_bytes=1 << 20, **options)
    for number, datagram in enumerate(_mistreated(_datagrams(turns, mss, closes), reader)):
        play.datagrams([datagram], step_ns=reader.choice(STEPS_NS))
        assert number % 16 or _closes(play)
    play.finish()
    assert _closes(play)
    for line in play.lines:
        assert dict(json.loads(line))["response_code"].isdigit()
    pipeline = play.pipeline
    assert (pipeline.budget.used_bytes, pipeline.table.held_bytes, pipeline.table.flow_count) == (0, 0, 0)


def _turn(reader: Reader) -> tuple[int, bytes]:
    side = reader.choice((CLIENT, SERVER))
    parts = []
    for _ in range(reader.number(12)):
        piece = reader.number(len(PIECES) + 2)
        parts.append(PIECES[piece] if piece < len(PIECES) else reader.take(reader.number(64)))
    return side, b"".join(parts)


def _datagrams(turns: list[tuple[int, bytes]], mss: int, closes: int) -> list[bytes]:
    """The whole connection; `closes` 0 leaves it open, 1 is the client's FIN, 2 the server's."""
    seqs = [2**32 - 20, 5000]
    made = []

    def send(side: int, flags: int, payload: bytes = b"", consumes: int = 0) -> None:
        ack = seqs[1 - side] if flags & ACK else 0
        if side == CLIENT:
            made.append(packet(40000, seqs[side], ack, flags, payload))
        else:
            made.append(packet(80, seqs[side], ack, flags, payload, SERVER_ADDRESS, CLIENT_ADDRESS, dport=40000))
        seqs[side] = (seqs[side] + len(payload) + consumes) % 2**32

    send(CLIENT, SYN, consumes=1)
    send(SERVER, SYN | ACK, consumes=1)
    for side, data in turns:
        for at in range(0, len(data), mss):
            send(side, ACK, data[at : at + mss])
    if closes:
        send(closes - 1, FIN | ACK, consumes=1)
        send(2 - closes, FIN | ACK, consumes=1)
        send(closes - 1, ACK)
    return made


def _played(datagrams: list[bytes], options: dict[str, int]) -> Play:
    play = Play(**options).datagrams(datagrams, step_ns=1000)
    play.finish()
    assert _closes(play)
    assert play.pipeline.budget.used_bytes == 0
    return play


def _searched(play: Play) -> bool:
    counters = play.pipeline.http.counters
    return bool(counters.searches or counters.orphans or counters.ambiguous)


def _closes(play: Play) -> bool:
    taken = ledger.take(play.pipeline, None)
    return all(equation.closes for equation in taken.equations if equation.name != "deliveries")


def _mistreated(datagrams: list[bytes], reader: Reader) -> list[bytes]:
    """Datagrams dropped, repeated, moved, cut, and with bytes of their headers changed."""
    made = list(datagrams)
    for _ in range(reader.number(24)):
        if not made:
            break
        at = reader.number(len(made))
        what = reader.number(5)
        if what == 0:
            made.pop(at)
        elif what == 1:
            made.insert(reader.number(len(made)), made[at])
        elif what == 2:
            made.insert(reader.number(len(made)), made.pop(at))
        elif what == 3:
            made[at] = made[at][: reader.number(len(made[at]) + 1)]
        elif made[at]:
            changed = bytearray(made[at])
            changed[reader.number(min(128, len(changed)))] = reader.number(256)
            made[at] = bytes(changed)
    return made


def _packed(turns: list[tuple[int, list[int]]], config: bytes = b"\2\1\2\1", mistreat: bytes = b"") -> bytes:
    """An input of these turns, each a side and the numbers of its pieces."""
    body = b"".join(bytes([side, len(pieces), *pieces]) for side, pieces in turns)
    return config + bytes([len(turns)]) + body + mistreat


def seeds() -> list[bytes]:
    get, answer = [0, 10, 19], [4, 11, 19, 21]
    chunked = [4, 13, 19, 22, 24]
    return [
        _packed([(0, get), (1, answer)]),
        _packed([(0, get), (1, chunked), (0, [1, 10, 11, 19, 21]), (1, answer)], b"\1\0\0\2", b"\3\5\0\6\1\4\2"),
        _packed([(0, [1, 10, 11, 17, 19]), (1, [5]), (0, [21]), (1, [7, 19])]),
        _packed([(0, [0, 10, 18, 19]), (1, [6]), (0, [21]), (1, [21])]),
        _packed([(0, [*get, *get]), (1, [*answer, *chunked])], b"\0\1\1\1", b"\2\4\4\20\377"),
        _packed([(0, [2, 19]), (1, [9, 19, 21])], b"\2\1\0\2"),
        _packed([(0, [25]), (1, [25])]),
        _packed([(0, [26])]),
        _packed([(0, [3, 19]), (1, [4, 19, 21])]),
    ]
