"""The chunked coding against the RFC, and against h11 on generated bodies."""

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxsniff.http import chunked
from vxsniff.http.budget import Budget
from vxsniff.http.chunked import ChunkedDecoder
from vxsniff.http.message import Message

LIMIT = 1_000_000


def decode(data, cuts=(), limit=LIMIT):
    message = Message(0, 0, 0, Budget(10 * LIMIT))
    decoder = ChunkedDecoder(message, limit)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    used = 0
    for start, end in itertools.pairwise(edges):
        took = decoder.feed(data[start:end], 0)
        used = start + took
        if decoder.done or decoder.failed:
            break
    return decoder, message, used


def test_a_body_of_chunks_with_extensions_and_trailers_is_read():
    data = b"5;name=value\r\nhello\r\n06 \r\n world\r\n0\r\nX-Sum: 1\r\nX-End:\t2 \r\n\r\nNEXT"
    decoder, message, used = decode(data)
    assert decoder.done
    assert bytes(message.body) == b"hello world"
    assert [(field.name, field.value) for field in decoder.trailers] == [(b"X-Sum", b"1"), (b"X-End", b"2")]
    assert data[used:] == b"NEXT"


def test_bare_line_feeds_are_taken():
    decoder, message, _ = decode(b"3\nabc\n0\n\n")
    assert decoder.done
    assert bytes(message.body) == b"abc"


@pytest.mark.parametrize(
    "data",
    [
        b"xyz\r\n",
        b"\r\nabc",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"5\r\nhelloMORE\r\n",
        b"1_0\r\n",
        b"f" * 16 + b"\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"1;" + b"x" * chunked.MAX_LINE_BYTES,
        b"0\r\n" + b"a: b\r\n" * chunked.MAX_LINE_BYTES,
    ],
)
def test_what_is_no_chunk_fails_without_an_exception(data):
    decoder, _, _ = decode(data)
    assert decoder.failed
    assert not decoder.done


def test_the_body_limit_bounds_what_is_kept():
    decoder, message, _ = decode(b"a\r\n0123456789\r\n5\r\nabcde\r\n0\r\n\r\n", limit=12)
    assert decoder.done
    assert bytes(message.body) == b"0123456789ab"
    assert (message.wire_body_bytes, message.left_out_bytes) == (15, 3)


def test_a_gap_inside_a_chunk_can_be_stepped_over():
    decoder, message, _ = decode(b"a\r\n0123")
    assert decoder.skippable_bytes == 6
    decoder.skip(6)
    assert decoder.feed(b"\r\n1\r\nx\r\n0\r\n\r\n", 0) == 13
    assert decoder.done
    assert message.wire_body_bytes == 5


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@given(CHUNKS, st.lists(st.integers(0, 10_000), max_size=10))
def test_any_split_gives_what_h11_gives(parts, cuts):
    data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    body = b""
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        body += bytes(event.data) if isinstance(event, h11.Data) else b""
    decoder, message, used = decode(data, cuts)
    assert decoder.done
    assert bytes(message.body) == body == b"".join(parts)
    assert used == len(data)


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=5))
def test_garbage_ends_in_a_state_and_the_split_does_not_matter(data, cuts):
    one, first, used = decode(data)
    two, second, used_split = decode(data, cuts)
    assert (one.done, one.failed, bytes(first.body)) == (two.done, two.failed, bytes(second.body))
    if one.done:
        assert used == used_split
