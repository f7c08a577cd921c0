"""Mixed traffic at a steady rate, in a process of its own: `python -m tests.soak.mixture PORT SECONDS CALLS_PER_S SEED`.

Connections of different shapes are written once; each is then sent again and again under another client's address and
port, many of them interleaved. Prints as JSON how many calls were sent whole, and how many datagrams.
"""

from __future__ import annotations

import gzip
import json
import random
import socket
import struct
import sys
import time
from dataclasses import dataclass

from tests.builders import CLIENT, SERVER, Conversation, Endpoint, answer, get, in_vxlan, post

AT_ONCE = 200
STEP_S = 0.005
_SOURCE, _DESTINATION, _PORTS = 8 + 14 + 12, 8 + 14 + 16, 8 + 14 + 20


@dataclass
class Shape:
    """A connection. `calls` of it arrive whole; `weight` says how often it comes."""

    name: str
    weight: int
    calls: int
    datagrams: list[tuple[int, bytes]]  # the side that sends, and the packet


def shapes() -> list[Shape]:
    page = b"".join(b'{"id": %d, "name": "item %d"},' % (n, n * 7919) for n in range(3000))
    small, form = b'{"ok": true, "items": [1, 2, 3]}', b"name=jane&amount=12&note=hello+world"
    as_json = {"content_type": "application/json"}
    packed = gzip.compress(page, 6)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(page[i : i + 4000]), page[i : i + 4000]) for i in range(0, 60_000, 4000))
    chunked = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    )
    headers = tuple(f"X-Header-{n}: value {n}" for n in range(12))
    read = [(CLIENT, get("/whole/read", *headers)), (SERVER, answer(small, *headers, **as_json))]
    write = [
        (CLIENT, post("/whole/form", form, "Content-Type: application/x-www-form-urlencoded")),
        (SERVER, answer(small)),
    ]
    upload = [(CLIENT, post("/whole/upload", page[:40_000])), (SERVER, answer(status="201 Created"))]
    piped = [(CLIENT, get("/whole/piped") * 5), (SERVER, answer(small, **as_json) * 5)]
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    frames = b"\x82\x7e\x04\x00" + bytes(1024)
    return [
        _shape("one", 20, 1, read),
        _shape("kept", 20, 20, read * 12 + write * 8),
        _shape("packed", 4, 2, [read[0], (SERVER, answer(packed, "Content-Encoding: gzip", **as_json)), *write]),
        _shape("chunked", 3, 1, [(CLIENT, get("/whole/chunked")), (SERVER, chunked)]),
        _shape("upload", 3, 1, upload),
        _shape("piped", 5, 10, piped * 2),
        _shape("reset", 3, 2, read * 2, close="reset"),
        _shape("left open", 6, 2, read * 2, close=""),
        _shape("half open", 4, 0, [], close=""),
        _shape(
            "tls",
            6,
            0,
            [(CLIENT, b"\x16\x03\x01\x02\x00" + bytes(512)), (SERVER, b"\x16\x03\x03\x10\x00" + bytes(4096))],
        ),
        _shape(
            "upgraded",
            2,
            1,
            [
                (CLIENT, get("/whole/socket", "Upgrade: websocket", "Connection: Upgrade")),
                (SERVER, upgrade),
                (SERVER, frames * 4),
            ],
        ),
        _shape(
            "lossy", 6, 0, [(side, data.replace(b"/whole", b"/lossy")) for side, data in read * 6], lose=(9, 17, 30)
        ),
        _shape("midway", 2, 0, [(side, data.replace(b"/whole", b"/lossy")) for side, data in read * 4], lose=range(6)),
        _shape("broken", 3, 0, [(CLIENT, b"GET /lossy HTTP/1.1\r\nbad header\r\n\r\n"), (SERVER, answer(small))]),
    ]


def _shape(name, weight, calls, turns, close="fin", lose=()) -> Shape:
    conversation = Conversation(Endpoint("10.0.0.1", 1024), Endpoint("10.0.0.2", 80), (1000, 5000))
    sent = [(number % 2, frame) for number, frame in enumerate(conversation.open())]
    if not turns:
        sent = sent[:1]
    for side, data in turns:
        frames = conversation.send(side, data)
        sent += [*((side, frame) for frame in frames[:-1]), (1 - side, frames[-1])]
    if close == "reset":
        sent += [(CLIENT, conversation.reset(CLIENT)[0])]
    elif close:
        for side in (CLIENT, SERVER):
            fin, ack = conversation.close(side)
            sent += [(side, fin), (1 - side, ack)]
    kept = [(side, in_vxlan(frame, 123)) for number, (side, frame) in enumerate(sent) if number not in lose]
    return Shape(name, weight, calls, kept)


class Mixture:
    """Datagrams of interleaved connections, without an end; `whole` counts the calls that were sent whole."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._shapes = shapes()
        self._weights = [shape.weight for shape in self._shapes]
        self._number = 0
        self._active: list[tuple[Shape, int, bytes, bytes]] = []
        self.whole = 0

    def _start(self) -> tuple[Shape, int, bytes, bytes]:
        self._number += 1
        shape = self._draw.choices(self._shapes, self._weights)[0]
        self.whole += shape.calls
        address = struct.pack("!I", 0x0A010000 + self._number // 60_000)
        return shape, 0, address, struct.pack("!H", 1024 + self._number % 60_000)

    def next(self) -> bytes:
        while len(self._active) < AT_ONCE:
            self._active.append(self._start())
        return self._step(self._draw.randrange(AT_ONCE))

    def rest(self):
        """What the connections that were begun still have to say."""
        while self._active:
            yield self._step(self._draw.randrange(len(self._active)))

    def _step(self, at: int) -> bytes:
        shape, position, address, port = self._active[at]
        side, datagram = shape.datagrams[position]
        if position + 1 < len(shape.datagrams):
            self._active[at] = (shape, position + 1, address, port)
        else:
            self._active[at] = self._active[-1]
            self._active.pop()
        if side == CLIENT:
            return b"".join((datagram[:_SOURCE], address, datagram[_SOURCE + 4 : _PORTS], port, datagram[_PORTS + 2 :]))
        return b"".join((datagram[:_DESTINATION], address, datagram[_PORTS : _PORTS + 2], port, datagram[_PORTS + 4 :]))


def send(port: int, seconds: float, calls_per_s: float, seed: int) -> dict[str, float]:
    mixture = Mixture(seed)
    sent = 0
    started_s = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("127.0.0.1", port))
        while (passed_s := time.monotonic() - started_s) < seconds:
            while mixture.whole < passed_s * calls_per_s:
                out.send(mixture.next())
                sent += 1
            time.sleep(STEP_S)
        for number, datagram in enumerate(mixture.rest()):
            out.send(datagram)
            sent += 1
            if number % 64 == 0:
                time.sleep(STEP_S)
    return {"calls": mixture.whole, "datagrams": sent}


def main() -> None:
    port, seconds, rate, seed = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    print(json.dumps(send(port, seconds, rate, seed)))


if __name__ == "__main__":
    main()
