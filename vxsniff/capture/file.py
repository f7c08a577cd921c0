"""Capture files -> frames: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), gzip around either.

The walk over records is ours, on dpkt's constants and headers: dpkt's readers give a truncated last packet as if it
were whole, know the first interface of a pcapng file only, and give times as floats, which lose nanoseconds.
Damage raises DamagedFile behind the last good frame. Bounds: MAX_RECORD_BYTES a record, MAX_INTERFACES a section.
"""

from __future__ import annotations

import gzip
import heapq
import io
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple, cast

from dpkt import pcap, pcapng

MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
MAX_INTERFACES: Final = 4096
_BUFFER_BYTES: Final = 1024 * 1024

_NS: Final = 1_000_000_000
# Magic number as it stands in the file -> byte order, nanoseconds a unit of the time's second field, header length.
_PCAP_MAGICS: Final[dict[bytes, tuple[str, int, int]]] = {
    struct.pack(order + "I", magic): (order, unit, length)
    for order in "<>"
    for magic, unit, length in (
        (pcap.TCPDUMP_MAGIC, 1000, pcap.PktHdr.__hdr_len__),
        (pcap.TCPDUMP_MAGIC_NANO, 1, pcap.PktHdr.__hdr_len__),
        (pcap.MODPCAP_MAGIC, 1000, pcap.PktModHdr.__hdr_len__),
    )
}
_PCAPNG_MAGIC: Final = struct.pack(">I", pcapng.PCAPNG_BT_SHB)
_GZIP_MAGIC: Final = b"\x1f\x8b"


class Frame(NamedTuple):
    """One captured frame: nanoseconds since the epoch, the file's link type for it, its bytes."""

    ts_ns: int
    link_type: int
    data: bytes


class DamagedFile(Exception):
    """A file is none of ours, or ends or contradicts itself in the middle; the message says what and where."""


class CaptureFiles:
    """Frames of several capture files in order of time. `-` is standard input.

    A damaged file gives its frames up to the damage; `errors` then holds a line about it. `close` when done.
    """

    def __init__(self, names: list[str]) -> None:
        """Opens all files; raises OSError for one that can't be opened."""
        self.errors: list[str] = []
        self.frames_read = 0
        self._files: list[tuple[str, BinaryIO]] = []
        self.total_bytes = 0
        """Of all files; -1 when it can't be known, as for standard input and pipes."""
        for name in names:
            self._files.append((name, self._open(name)))

    def _open(self, name: str) -> BinaryIO:
        if name == "-":
            self.total_bytes = -1
            return sys.stdin.buffer
        file = open(name, "rb", buffering=_BUFFER_BYTES)  # noqa: SIM115 - closed by close()
        if self.total_bytes >= 0:
            size = os.fstat(file.fileno()).st_size
            self.total_bytes = self.total_bytes + size if size else -1
        return file

    @property
    def read_bytes(self) -> int:
        """How far into the files the frames are that were given so far, roughly: buffers read ahead. 0 where
        `total_bytes` is not known: a pipe can't tell.
        """
        if self.total_bytes <= 0:
            return 0
        return sum(file.tell() for name, file in self._files if name != "-" and not file.closed)

    def close(self) -> None:
        for name, file in self._files:
            if name != "-":
                file.close()

    def frames(self) -> Iterator[Frame]:
        """All frames. One file's are given as they stand, several files' merged by time."""
        sources = [self._frames_of(name, file) for name, file in self._files]
        merged = sources[0] if len(sources) == 1 else heapq.merge(*sources, key=_time_of)
        for frame in merged:
            self.frames_read += 1
            yield frame

    def _frames_of(self, name: str, file: BinaryIO) -> Iterator[Frame]:
        try:
            yield from read_frames(file)
        except DamagedFile as damage:
            self.errors.append(f"{'standard input' if name == '-' else name}: {damage}")
        except (OSError, EOFError, zlib.error) as error:
            self.errors.append(f"{name}: can't be read further: {error}")


def _time_of(frame: Frame) -> int:
    return frame.ts_ns


def read_frames(file: BinaryIO) -> Iterator[Frame]:
    """The frames of one capture file of either format. Raises DamagedFile."""
    magic = file.read(4)
    if magic[:2] == _GZIP_MAGIC:
        # The four bytes are put back in front: standard input can't seek.
        file = cast(BinaryIO, gzip.open(cast(BinaryIO, _Rejoined(magic, file)), "rb"))  # noqa: SIM115
        magic = file.read(4)
    if magic in _PCAP_MAGICS:
        return _read_pcap(file, *_PCAP_MAGICS[magic])
    if magic == _PCAPNG_MAGIC:
        return _read_pcapng(file)
    if not magic:
        raise DamagedFile("is empty: a capture has a header at least")
    raise DamagedFile(f"is no capture file: it begins with {magic.hex()}; pcap and pcapng are read")


class _Rejoined(io.RawIOBase):
    """Bytes that were read already, and the file that they were read from."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._head and size > 0:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._rest.read(size)


def _take(file: BinaryIO, size: int, what: str, number: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise DamagedFile(f"ends in the middle of {what} {number}: it was cut off")
    return data


def _read_pcap(file: BinaryIO, order: str, unit_ns: int, header_bytes: int) -> Iterator[Frame]:
    rest = _take(file, pcap.FileHdr.__hdr_len__ - 4, "header", 1)
    # The upper bits of the link type tell about frame check sequences (draft section 4).
    link_type = struct.unpack_from(order + "I", rest, 16)[0] & 0x0FFFFFFF
    unpack = struct.Struct(order + "III").unpack_from
    read = file.read
    number = 0
    while header := read(header_bytes):
        number += 1
        if len(header) < header_bytes:
            raise DamagedFile(f"ends in the middle of packet {number}: it was cut off")
        seconds, fraction, size = unpack(header)
        if size > MAX_RECORD_BYTES or fraction * unit_ns >= 2 * _NS:
            raise DamagedFile(f"packet {number} has an impossible header ({size} bytes): the file is damaged")
        data = read(size)
        if len(data) < size:
            raise DamagedFile(f"ends in the middle of packet {number}: it was cut off")
        yield Frame(seconds * _NS + fraction * unit_ns, link_type, data)


class _Interface(NamedTuple):
    link_type: int
    units_a_second: int
    offset_ns: int


def _read_pcapng(file: BinaryIO) -> Iterator[Frame]:
    """Blocks of all sections; the first block's type was read already (draft section 3)."""
    order = ""
    interfaces: list[_Interface] = []
    ts_ns = 0
    number = 1
    kind_bytes = _PCAPNG_MAGIC
    while kind_bytes:
        if len(kind_bytes) < 4:
            raise DamagedFile(f"ends in the middle of block {number}: it was cut off")
        if kind_bytes == _PCAPNG_MAGIC:
            start = _take(file, 8, "block", number)
            orders = {struct.pack(o + "I", pcapng.BYTE_ORDER_MAGIC): o for o in "<>"}
            if start[4:] not in orders:
                raise DamagedFile(f"block {number} has no byte order mark: the file is damaged")
            order = orders[start[4:]]
            interfaces = []
            _take(file, _block_bytes(order, start, number) - 12, "block", number)
        else:
            kind = struct.unpack(order + "I", kind_bytes)[0]
            start = _take(file, 4, "block", number)
            body = _take(file, _block_bytes(order, start, number) - 8, "block", number)
            try:
                if kind == pcapng.PCAPNG_BT_IDB:
                    if len(interfaces) >= MAX_INTERFACES:
                        raise DamagedFile(f"block {number}: more than {MAX_INTERFACES} interfaces")
                    interfaces.append(_interface(order, body[:-4]))
                elif kind == pcapng.PCAPNG_BT_EPB or kind == pcapng.PCAPNG_BT_PB:
                    fields = order + ("IIIII" if kind == pcapng.PCAPNG_BT_EPB else "H2xIIII")
                    index, high, low, size, _ = struct.unpack_from(fields, body)
                    interface = interfaces[index]
                    ts_ns = (high << 32 | low) * _NS // interface.units_a_second + interface.offset_ns
                    if 20 + size > len(body) - 4:
                        raise DamagedFile(f"block {number} is shorter than its packet: the file is damaged")
                    yield Frame(ts_ns, interface.link_type, body[20 : 20 + size])
                elif kind == pcapng.PCAPNG_BT_SPB:
                    # It has no time of its own: it counts as captured with the packet before it.
                    size = min(struct.unpack_from(order + "I", body)[0], len(body) - 8)
                    yield Frame(ts_ns, interfaces[0].link_type, body[4 : 4 + size])
            except (struct.error, IndexError):
                raise DamagedFile(f"block {number} contradicts the blocks before it: the file is damaged") from None
        number += 1
        kind_bytes = file.read(4)


def _block_bytes(order: str, start: bytes, number: int) -> int:
    """The length of a whole block, which stands behind its type; a multiple of 4 that leaves room for both lengths."""
    size: int = struct.unpack_from(order + "I", start)[0]
    if not 12 <= size <= MAX_RECORD_BYTES or size % 4:
        raise DamagedFile(f"block {number} has an impossible length ({size} bytes): the file is damaged")
    return size


def _interface(order: str, body: bytes) -> _Interface:
    """An Interface Description Block (draft section 4.2): link type, time resolution and offset."""
    link_type = struct.unpack_from(order + "H", body)[0]
    units = 1_000_000
    offset_ns = 0
    pos = 8
    while pos + 4 <= len(body):
        code, size = struct.unpack_from(order + "HH", body, pos)
        value = body[pos + 4 : pos + 4 + size]
        if code == pcapng.PCAPNG_OPT_ENDOFOPT:
            break
        if code == pcapng.PCAPNG_OPT_IF_TSRESOL and value:
            units = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** min(value[0], 30)
        elif code == pcapng.PCAPNG_OPT_IF_TSOFFSET and len(value) == 8:
            offset_ns = struct.unpack(order + "q", value)[0] * _NS
        pos += 4 + size + -size % 4
    return _Interface(link_type, units, offset_ns)
