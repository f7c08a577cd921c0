"""Hostile input raises nothing, leaks nothing, and keeps every bound: random bytes, and real datagrams that were
flipped, cut, joined, repeated and mixed.
"""

import json
import random

import pytest

from tests.builders import (
    CLIENT,
    MS,
    SERVER,
    Conversation,
    Endpoint,
    Play,
    answer,
    ethernet,
    get,
    in_vxlan,
    ipv4,
    post,
    udp,
)
from vxsniff.app import ledger
from vxsniff.demo.frames import in_geneve
from vxsniff.flow.table import FlowTable
from vxsniff.wire import defrag

DATAGRAMS = 200_000
MEMORY = 16 * 1024 * 1024
BODIES = [
    answer(b"hello"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + bytes(range(20)),
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00",
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"x"),
    b"\x16\x03\x01\x00\x05hello",
]


def seeds(draw):
    """Datagrams of real connections, some in other wrappings."""
    made = []
    for number in range(60):
        ends = (Endpoint(f"10.0.0.{number % 7 + 1}", 40000 + number % 5), Endpoint("10.0.0.99", 80))
        if number % 3 == 0:
            ends = (Endpoint("fd00::1", 40000 + number), Endpoint("fd00::2", 80))
        conversation = Conversation(*ends, (draw.randrange(2**32), draw.randrange(2**32)), draw.choice([20, 100, 1460]))
        frames = conversation.open()
        for _ in range(3):
            request = draw.choice(
                [get("/x?a=b"), post("/y", b"form=1&x=2"), post("/z", b"q" * 300, "Expect: 100-continue")]
            )
            frames += conversation.send(CLIENT, request)
            frames += conversation.send(SERVER, draw.choice(BODIES))
        frames += conversation.close(draw.choice([CLIENT, SERVER]))
        for frame in frames:
            made.append(in_vxlan(frame, draw.choice([1, 2])))
            if draw.random() < 0.1:
                made.append(in_vxlan(ethernet(ipv4(udp(in_geneve(frame, 5), dport=6081), proto=17)), 3))
            if draw.random() < 0.1:
                body = frame[34:]
                made.append(in_vxlan(ethernet(ipv4(body[:24], fragment=0x2000)), 4))
                made.append(in_vxlan(ethernet(ipv4(body[24:], fragment=3)), 4))
    return made


def mutated(draw, datagrams):
    kind = draw.random()
    datagram = draw.choice(datagrams)
    if kind < 0.35:
        return datagram
    if kind < 0.6:
        data = bytearray(datagram)
        for _ in range(draw.choice([1, 1, 2, 5])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        return bytes(data)
    if kind < 0.75:
        return datagram[: draw.randrange(len(datagram) + 1)]
    if kind < 0.85:
        other = draw.choice(datagrams)
        return datagram[: draw.randrange(len(datagram))] + other[draw.randrange(len(other)) :]
    if kind < 0.95:
        # Numbers in the TCP header, where a flipped bit does the most.
        data = bytearray(datagram)
        at = 8 + 14 + 20 + draw.choice([0, 2, 4, 8, 12, 13])
        data[at : at + 4] = draw.randbytes(4)
        return bytes(data)
    return draw.randbytes(draw.randrange(200))


def check_bounds(play):
    pipeline = play.pipeline
    table: FlowTable = pipeline.table
    assert table.flow_count <= table._max_flows
    assert table.held_bytes <= table._max_held_bytes
    assert pipeline.budget.used_bytes <= pipeline.budget.limit_bytes
    assert pipeline.decoder.fragments.held_bytes <= defrag.MAX_BYTES
    assert len(pipeline.http.blocked) <= table.flow_count
    assert len(pipeline.http.unanswered) <= table.flow_count


@pytest.mark.timeout(300)
def test_two_hundred_thousand_hostile_datagrams_raise_nothing_and_keep_every_bound():
    draw = random.Random(20261121)
    datagrams = []
    play = Play(rules="include standard\nallow_http_url", memory_limit_bytes=MEMORY, body_limit_bytes=4096)
    for number in range(DATAGRAMS):
        if number % 2_500 == 0:
            datagrams = seeds(draw)  # anew: the ones before are all known by now
        # Mostly in their order, so that connections get far before something strange comes.
        datagram = datagrams[number % 2_500 % len(datagrams)]
        if draw.random() < 0.3 or number % 2_500 > len(datagrams):
            datagram = mutated(draw, datagrams)
        receive = play.pipeline.vxlan_datagram if number % 11 else play.pipeline.geneve_datagram
        receive(datagram, play.now_ns)
        play.now_ns += draw.choice([0, MS // 10, MS, 20 * MS])
        if number % 5000 == 0:
            check_bounds(play)
            taken = ledger.take(play.pipeline, None)
            assert all(equation.closes for equation in taken.equations[:-1]), taken
    for line in play.lines:
        json.loads(line)
    assert len(play.lines) > 500  # what is whole among it comes through
    play.finish()
    assert play.pipeline.table.flow_count == 0
    assert play.pipeline.table.held_bytes == 0
    assert play.pipeline.budget.used_bytes == 0
    taken = ledger.take(play.pipeline, None)
    assert all(equation.closes for equation in taken.equations[:-1])
    assert [part for equation in taken.equations[:-1] for part in equation.parts if part.is_open and part.value] == []


def test_a_connection_of_hostile_messages_raises_nothing():
    draw = random.Random(5)
    pieces = [
        *(
            b"GET / HTTP/1.1\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"Content-Length: 5\r\n",
            b"Content-Length: -1\r\n",
            b"\r\n",
            b"\n",
        ),
        *(
            b"Content-Length: 99999999999999999999\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Upgrade: x\r\n",
            b"hello",
            b"\0",
        ),
        *(
            b"Connection: Upgrade\r\n",
            b"Expect: 100-continue\r\n",
            b"HTTP/1.1 100 C\r\n\r\n",
            b"HTTP/1.1 101 S\r\n\r\n",
            b"5\r\nhello\r\n",
        ),
        *(
            b"0\r\n\r\n",
            b"ffffffffffffffff\r\n",
            b"Content-Encoding: gzip\r\n",
            b"HEAD / HTTP/1.0\r\n",
            b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        ),
        *(
            b": \r\n",
            b"A" * 3000,
            b"HTTP/1.1 999 \r\n\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"Host: \xff\xfe\r\n",
            b"Set-Cookie: a\r\n",
        ),
    ]
    for number in range(4000):
        conversation = Conversation(Endpoint("10.0.0.1", 1024 + number), Endpoint("10.0.0.2", 80))
        frames = conversation.open()
        for _ in range(draw.randrange(1, 6)):
            data = b"".join(draw.choices(pieces, k=draw.randrange(1, 9)))
            frames += conversation.send(draw.choice([CLIENT, SERVER]), data)
        if draw.random() < 0.3:
            frames.pop(draw.randrange(len(frames)))
        play = Play(rules="include standard\nallow_http_url").frames(
            frames + conversation.close(CLIENT), step_ns=100 * MS
        )
        play.finish()
        taken = ledger.take(play.pipeline, None)
        assert all(equation.closes for equation in taken.equations[:-1]), (number, taken)
        assert play.pipeline.budget.used_bytes == 0


SECRET = "s3cr3t-t0ken"
PLANTED = [
    (
        CLIENT,
        post(
            f"/login?token={SECRET}",
            f'{{"password":"{SECRET}"}}'.encode(),
            f"Cookie: session={SECRET}",
            f"Authorization: Bearer {SECRET}",
        ),
    ),
    (SERVER, answer(f"your token is {SECRET}".encode(), f"Set-Cookie: session={SECRET}", f"X-Token: {SECRET}")),
]


def test_what_the_default_rules_remove_reaches_no_line():
    conversation = Conversation(Endpoint("10.0.0.1", 1024), Endpoint("10.0.0.2", 80))
    frames = conversation.open()
    for side, data in PLANTED:
        frames += conversation.send(side, data)
    play = Play(rules="include default\nallow_http_url").frames(frames)
    (call,) = play.finish()
    assert call["request_url"] == "http://shop.example/login"
    assert all(SECRET.encode() not in line for line in play.lines)
