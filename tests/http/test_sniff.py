"""What a direction speaks, by its first bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxsniff.http import sniff


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GET / HTTP/1.1\r\n", sniff.REQUEST),
        (b"GET /a long unfinished target", sniff.REQUEST),
        (b"BREW /pot HTTP/1.1\r\n", sniff.REQUEST),
        (b"BREW /pot", sniff.NEED_MORE),
        (b"GET /raw bytes \xc3\xa4 in it HTTP/1.0\r\n", sniff.REQUEST),
        (b"HTTP/1.1 200 OK\r\n", sniff.RESPONSE),
        (b"HTTP/1.0 404\r\n", sniff.RESPONSE),
        (b"H", sniff.NEED_MORE),
        (b"HEAD / HTTP/1.1\r\n", sniff.REQUEST),
        (b"", sniff.NEED_MORE),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", sniff.HTTP2),
        (b"PRI", sniff.NEED_MORE),
        (b"\x16\x03\x01\x02\x00\x01", sniff.TLS),
        (b"\x17\x03\x03\x00\x20", sniff.TLS),
        (b"\x16", sniff.NEED_MORE),
        (b"\x16\x09\x09", sniff.OTHER),
        (b"SSH-2.0-OpenSSH_9\r\n", sniff.OTHER),
        (b"EHLO mail.example\r\n", sniff.OTHER),
        (b"GET / RTSP/1.0\r\n", sniff.OTHER),
        (b"\0\0\0\1", sniff.OTHER),
        (b"*1\r\n$4\r\nPING\r\n", sniff.OTHER),
    ],
)
def test_first_bytes_are_told_apart(data, kind):
    assert sniff.classify(data) == kind


@pytest.mark.parametrize(
    ("data", "may_start"),
    [
        (b"GET /x HTTP/1.1\r\nHost: a\r\n", True),
        (b"POST /very/long", True),
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"\x16\x03\x03\x00\x40abc", True),
        (b"PRI * HTTP/2.0\r\n", True),
        (b'{"method": "GET / HTTP/1.1"}', False),
        (b"BREW /pot HTTP/1.1\r\n", False),
        (b"GET lost\nin a text", False),
        (b"\x17\x03\x03\xff\xff", False),
    ],
)
def test_in_the_middle_only_well_known_starts_count(data, may_start):
    assert sniff.looks_like_start(data) == may_start


@given(st.binary(max_size=80))
def test_any_prefix_of_a_decided_text_is_undecided_or_the_same(data):
    decided = sniff.classify(data)
    for size in range(len(data)):
        kind = sniff.classify(data[:size])
        # A known method is enough for a request; its line may still turn out to be none.
        assert kind in (sniff.NEED_MORE, decided, sniff.REQUEST) or decided == sniff.NEED_MORE
