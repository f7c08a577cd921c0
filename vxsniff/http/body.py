"""A body as it was on the wire -> what it says: content codings undone (RFC 9110 section 8.4), then text or nothing.

Every decoder stops at a limit, so a bomb costs at most the limit. Decoders are libraries: isal for gzip and deflate
(RFC 1952, RFC 1950), brotli for br (RFC 7932), zstandard for zstd (RFC 8878).
"""

from __future__ import annotations

import codecs
import re
import zlib
from typing import Final, cast

import brotli
import zstandard
from isal import isal_zlib
from mypy_extensions import mypyc_attr

MAX_CODINGS: Final = 4
_ZSTD_WINDOW_BYTES: Final = 8 * 1024 * 1024  # RFC 8878 section 3.1.1.1.2 and RFC 9659: all that HTTP allows

# What a decoder raises over a damaged stream. brotli has no annotations, and isal's error is zlib's.
_DAMAGED: Final = cast(
    tuple[type[Exception], ...],
    (isal_zlib.IsalError, zlib.error, brotli.error, zstandard.ZstdError, EOFError, ValueError),
)

# Outcomes of decoding; names in OUTCOMES are the ledger's.
OK: Final = 0
BINARY: Final = 1
UNKNOWN_CODING: Final = 2
DAMAGED_CODING: Final = 3
OUTCOMES: Final = ("text", "binary", "unknown_coding", "damaged_coding")

# Charsets that decode in linear time. Python knows more under "text encodings" (idna, unicode_escape, utf_7, ...).
_CHARSET: Final = re.compile(
    r"utf-8(?:-sig)?|utf-(?:16|32)(?:-[bl]e)?|ascii|iso8859-\d+|cp\d+|koi8-[rtu]|gb2312|gbk|gb18030|big5(?:hkscs)?|"
    r"euc_(?:jp|kr|jis_2004|jisx0213)|shift_jis(?:_2004|x0213)?|iso2022_(?:jp|kr)[_\d]*|hz|johab|tis-620|mac-\w+"
)
_CHARSET_PARAMETER: Final = re.compile(rb";\s*charset\s*=\s*\"?([\w.:+-]{1,40})", re.IGNORECASE)


class Media:
    """What headers say of a body: its content coding, its charset (Python's name for it, empty when none is declared
    that we decode), whether it calls itself text, whether it is a form.
    """

    __slots__ = ("charset", "coding", "is_form", "is_text")

    def __init__(self, content_encoding: bytes, content_type: bytes) -> None:
        media_type = content_type.partition(b";")[0].strip().lower()
        self.coding = content_encoding
        self.charset = declared_charset(content_type)
        self.is_form = media_type == b"application/x-www-form-urlencoded"
        self.is_text = media_type.startswith(b"text/")


@mypyc_attr(acyclic=True)
class Decoded:
    """`outcome` is one of the constants; `left_out_bytes` were beyond the limit (at least: a bomb is not counted)."""

    __slots__ = ("left_out_bytes", "outcome", "text")

    def __init__(self, outcome: int, text: str = "", left_out_bytes: int = 0) -> None:
        self.outcome = outcome
        self.text = text
        self.left_out_bytes = left_out_bytes


def decode_body(body: bytes | bytearray, media: Media, limit_bytes: int, is_whole: bool) -> Decoded:
    """The text of a body. `is_whole` is False when its end was left out, so that a coding may stop in the middle."""
    if not body:
        return Decoded(OK)
    left_out = 0
    if media.coding:
        codings = [c.strip().lower() for c in media.coding.split(b",")]
        if len(codings) > MAX_CODINGS:
            return Decoded(UNKNOWN_CODING)
        for coding in reversed(codings):
            if coding in (b"", b"identity"):
                continue
            decoded = _decode_coding(coding, bytes(body), limit_bytes)
            if decoded is None:
                return Decoded(UNKNOWN_CODING)
            body, finished = decoded
            if len(body) > limit_bytes:
                left_out += len(body) - limit_bytes
                body = body[:limit_bytes]
                is_whole = False
            elif not finished and is_whole:
                return Decoded(DAMAGED_CODING)
    text = to_text(body, media, is_whole)
    return Decoded(BINARY) if text is None else Decoded(OK, text, left_out)


def _decode_coding(coding: bytes, body: bytes, limit_bytes: int) -> tuple[bytes, bool] | None:
    """Undoes one coding: at most one byte more than the limit, and whether the coded stream ended; None: unknown."""
    try:
        if coding in (b"gzip", b"x-gzip"):
            return _inflate(body, 31, limit_bytes)
        if coding == b"deflate":
            # RFC 9110 section 8.4.1.2: zlib format, though some send the bare deflate stream.
            is_zlib = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
            return _inflate(body, 15 if is_zlib else -15, limit_bytes)
        if coding == b"br":
            decompressor = brotli.Decompressor()
            out = decompressor.process(body, output_buffer_limit=limit_bytes + 1)
            return out[: limit_bytes + 1], decompressor.is_finished()
        if coding == b"zstd":
            return _decode_zstd(body, limit_bytes)
    except _DAMAGED:
        return b"", False
    return None


def _decode_zstd(body: bytes, limit_bytes: int) -> tuple[bytes, bool]:
    """All frames (RFC 8878 section 3.1). The reader is bounded but does not tell whether the last frame ended."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    out = decompressor.stream_reader(body, read_across_frames=True).read(limit_bytes + 1)
    if len(out) > limit_bytes:
        return out, False
    if zstandard.frame_content_size(body) == len(out):
        return out, True
    # The size was not announced. A second decoder tells, and gives no more than what was just seen to fit.
    while body:
        frame = decompressor.decompressobj()
        frame.decompress(body)
        if not frame.eof:
            return out, False
        body = frame.unused_data
    return out, True


def _inflate(body: bytes, wbits: int, limit_bytes: int) -> tuple[bytes, bool]:
    """All members of a gzip stream (RFC 1952 section 2.2), or the one deflate stream."""
    parts: list[bytes] = []
    room = limit_bytes + 1
    while body and room > 0:
        decompressor = isal_zlib.decompressobj(wbits)
        out = decompressor.decompress(body, room)
        parts.append(out)
        room -= len(out)
        if not decompressor.eof:
            return b"".join(parts), False
        body = decompressor.unused_data
        if wbits != 31 or not body.startswith(b"\x1f\x8b"):
            break  # padding behind the stream
    return b"".join(parts), True


def to_text(body: bytes | bytearray, media: Media, is_whole: bool) -> str | None:
    """The body's text, or None when it is not text.

    The declared charset is tried first, then UTF-8; what declares itself as text but is neither is read as
    ISO-8859-1, HTTP's old default. A NUL means binary, but in UTF-16 and UTF-32. Of a body whose end was left out,
    a broken last character is left out too.
    """
    charset = media.charset
    if is_whole and (not charset or charset == "utf-8"):
        try:
            plain = body.decode()
            if plain.find("\0") < 0 and not plain.startswith("\ufeff"):
                return plain  # the common case
        except UnicodeDecodeError:
            pass
    if charset:
        text = _try_decode(body, charset, is_whole)
        if text is not None and ("\0" not in text):
            return text
    text = _try_decode(body, "utf-8", is_whole)
    if text is None and (charset or media.is_text):
        text = body.decode("iso8859-1")
    return None if text is None or "\0" in text else text.removeprefix("\ufeff")


def declared_charset(content_type: bytes) -> str:
    """The charset of a Content-Type as Python's name for it; empty when there is none that we decode."""
    match = _CHARSET_PARAMETER.search(content_type)
    if match is None:
        return ""
    try:
        name = codecs.lookup(match[1].decode("ascii")).name
    except (LookupError, UnicodeDecodeError):
        return ""
    return name if _CHARSET.fullmatch(name) else ""


def _try_decode(body: bytes | bytearray, charset: str, is_whole: bool) -> str | None:
    try:
        if is_whole:
            return body.decode(charset)
        return codecs.getincrementaldecoder(charset)().decode(bytes(body), final=False)
    except (UnicodeDecodeError, ValueError):
        return None
