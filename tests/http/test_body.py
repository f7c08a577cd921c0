"""Content codings and text, bounded whatever the bytes are."""

import gzip
import tracemalloc
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from vxsniff.http import body
from vxsniff.http.body import Media, declared_charset


def decode_body(data, coding, content_type, limit_bytes, is_whole):
    return body.decode_body(data, Media(coding, content_type), limit_bytes, is_whole)


def to_text(data, content_type, is_whole):
    return body.to_text(data, Media(b"", content_type), is_whole)


TEXT = "Grüße, " * 50
PACKED = TEXT.encode()
RAW_DEFLATE = zlib.compressobj(wbits=-15)
LIMIT = 1_000_000
CODED = {
    b"gzip": gzip.compress(PACKED),
    b"x-gzip": gzip.compress(PACKED),
    b"GZIP": gzip.compress(PACKED),
    b"deflate": zlib.compress(PACKED),
    b"br": brotli.compress(PACKED),
    b"zstd": zstandard.ZstdCompressor().compress(PACKED),
    b"identity": PACKED,
    b"": PACKED,
}


@pytest.mark.parametrize("coding", CODED)
def test_every_coding_is_undone(coding):
    decoded = decode_body(CODED[coding], coding, b"text/plain", LIMIT, True)
    assert (decoded.outcome, decoded.text, decoded.left_out_bytes) == (body.OK, TEXT, 0)


def test_bare_deflate_is_taken_as_well():
    packer = zlib.compressobj(wbits=-15)
    coded = packer.compress(PACKED) + packer.flush()
    assert decode_body(coded, b"deflate", b"", LIMIT, True).text == TEXT


def test_codings_are_undone_in_reverse_order():
    coded = gzip.compress(brotli.compress(PACKED))
    assert decode_body(coded, b"br, gzip", b"", LIMIT, True).text == TEXT


def test_gzip_of_several_members_is_one_body():
    coded = gzip.compress(b"one ") + gzip.compress(b"two") + b"\0\0padding"
    assert decode_body(coded, b"gzip", b"", LIMIT, True).text == "one two"


def test_unknown_and_too_many_codings_are_left_out():
    assert decode_body(b"abc", b"compress", b"", LIMIT, True).outcome == body.UNKNOWN_CODING
    assert decode_body(b"abc", b",".join([b"gzip"] * 5), b"", LIMIT, True).outcome == body.UNKNOWN_CODING


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_a_broken_coding_is_left_out_and_a_body_cut_at_the_limit_keeps_its_beginning(coding):
    coded = CODED[coding]
    assert decode_body(b"\x99" + coded, coding, b"", LIMIT, True).outcome == body.DAMAGED_CODING
    assert decode_body(coded[:-6], coding, b"", LIMIT, True).outcome == body.DAMAGED_CODING
    beginning = decode_body(coded[:-6], coding, b"", LIMIT, False)
    assert beginning.outcome == body.OK
    assert TEXT.startswith(beginning.text)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip", b"br, gzip"])
def test_a_bomb_costs_at_most_the_limit(coding):
    bomb = bytes(200_000_000)
    for one in coding.split(b", "):
        if one == b"gzip":
            bomb = gzip.compress(bomb, 9)
        elif one == b"deflate":
            bomb = zlib.compress(bomb, 9)
        elif one == b"br":
            bomb = brotli.compress(bomb, quality=5)
        else:
            bomb = zstandard.ZstdCompressor().compress(bomb)
    tracemalloc.start()
    decoded = decode_body(bomb, coding, b"text/plain", 100_000, True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert decoded.outcome in (body.BINARY, body.OK, body.DAMAGED_CODING)
    assert len(decoded.text) <= 100_000
    assert peak < 3_000_000


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_of_a_long_body_the_first_bytes_are_kept_and_the_rest_is_counted(coding):
    long = ("line of text\n" * 100_000).encode()
    coder = {b"gzip": gzip.compress, b"deflate": zlib.compress, b"br": brotli.compress}.get(coding, zstandard.compress)
    decoded = decode_body(coder(long), coding, b"", 5000, True)
    assert decoded.text == long[:5000].decode()
    assert decoded.left_out_bytes > 0


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        ("Ä".encode("latin-1"), b"text/plain; charset=ISO-8859-1", "Ä"),
        ("Ж".encode("cp1251"), b'text/html; charset="windows-1251"', "Ж"),
        ("日本".encode("shift_jis"), b"text/html;charset=Shift_JIS", "日本"),
        ("hé".encode("utf-16"), b"text/plain; charset=utf-16", "hé"),
        ("hé".encode(), b"application/json", "hé"),
        ("\ufeffhé".encode(), b"application/json", "hé"),
        ("Ä".encode("latin-1"), b"text/plain", "Ä"),
        ("Ä".encode("latin-1"), b"application/json", None),
        (b"\x89PNG\r\n\x1a\n\0\0", b"image/png", None),
        (b"a\0b", b"text/plain", None),
        (b"abc", b"text/plain; charset=unicode_escape", "abc"),
        (b"abc", b"text/plain; charset=no-such", "abc"),
        (b"abc", b"text/plain; charset=idna", "abc"),
    ],
)
def test_text_is_read_by_its_charset_and_the_rest_is_binary(data, content_type, text):
    assert to_text(data, content_type, True) == text


def test_a_character_that_the_limit_cut_in_two_is_left_out():
    assert to_text("aé".encode()[:-1], b"", False) == "a"
    assert to_text("aé".encode()[:-1], b"", True) is None


def test_charsets_that_decode_badly_are_not_used():
    for name in (b"idna", b"punycode", b"utf-7", b"rot13", b"unicode_escape", b"hex", b"zlib"):
        assert declared_charset(b"text/plain; charset=" + name) == ""


@given(st.binary(max_size=300), st.sampled_from([b"gzip", b"deflate", b"br", b"zstd", b"", b"br,gzip"]), st.booleans())
def test_any_bytes_end_in_an_outcome(data, coding, is_whole):
    decoded = decode_body(data, coding, b"text/plain; charset=utf-8", 1000, is_whole)
    assert 0 <= decoded.outcome < len(body.OUTCOMES)
    assert len(decoded.text) <= 1000
