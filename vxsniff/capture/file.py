"""Capture files -> frames: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), gzip around either.

The walk over records is ours, on dpkt's constants and headers: dpkt's readers give a truncated last packet as if it
were whole, know the first interface of a pcapng file only, and give times as floats, which lose nanoseconds.
Damage raises DamagedFile behind the last good frame. Bounds: MAX_RECORD_BYTES a record, MAX_INTERFACES a section.
"""

from __future__ import annotations

import errno
import gzip
import heapq
import io
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, NamedTuple, cast

from dpkt import pcap, pcapng
from mypy_extensions import i64, mypyc_attr

MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
MAX_INTERFACES: Final = 4096
MAX_TIME_NS: Final = 2**62  # the year 2116
_CHUNK_BYTES: Final = 256 * 1024

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


@mypyc_attr(acyclic=True)
class Frame:
    """One captured frame: nanoseconds since the epoch, the file's link type for it, and where its bytes are in what was
    read of the file.
    """

    __slots__ = ("end", "link_type", "source", "start", "ts_ns")

    def __init__(self, ts_ns: i64, link_type: int, source: bytes, start: i64, end: i64) -> None:
        self.ts_ns = ts_ns
        self.link_type = link_type
        self.source = source
        self.start = start
        self.end = end

    @property
    def data(self) -> bytes:
        return self.source[self.start : self.end]


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
        self.in_hand: list[Frame] = []
        self._files: list[tuple[str, io.BufferedIOBase]] = []
        self.total_bytes = 0
        """Of all files; -1 when it can't be known, as for standard input and pipes."""
        for name in names:
            self._files.append((name, self._open(name)))

    def _open(self, name: str) -> io.BufferedIOBase:
        if name == "-":
            self.total_bytes = -1
            if sys.stdin is None:
                raise OSError(errno.EBADF, "it is closed", "standard input")
            return cast(io.BufferedIOBase, sys.stdin.buffer)
        file = open(name, "rb")  # noqa: SIM115 - closed by close()
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
        for batch in self.batches():
            yield from batch

    def batches(self) -> Iterator[list[Frame]]:
        """The same, as many at once as were there without waiting: none waits for the next to come. What was given last
        is `in_hand`, for who was interrupted on the way.
        """
        if len(self._files) == 1:
            given = self._batches_of(*self._files[0])
        else:
            given = _one_by_one(heapq.merge(*(self._frames_of(*one) for one in self._files), key=_time_of))
        while True:
            self.in_hand = []
            batch = next(given, None)
            if batch is None:
                return
            self.in_hand = batch
            self.frames_read += len(batch)
            yield batch

    def _frames_of(self, name: str, file: io.BufferedIOBase) -> Iterator[Frame]:
        for batch in self._batches_of(name, file):
            yield from batch

    def _batches_of(self, name: str, file: io.BufferedIOBase) -> Iterator[list[Frame]]:
        try:
            reader = open_reader(file)
            while batch := reader.next_batch():
                yield batch
        except DamagedFile as damage:
            self.errors.append(f"{'standard input' if name == '-' else name}: {damage}")
        except (OSError, EOFError, zlib.error) as error:
            self.errors.append(f"{name}: can't be read further: {error}")


def _one_by_one(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """To wait for the second of two may be to wait for a pipe. No generator expression: mypyc makes a list of it."""
    for frame in frames:
        yield [frame]


def _time_of(frame: Frame) -> int:
    return frame.ts_ns


def read_frames(file: io.BufferedIOBase) -> Iterator[Frame]:
    """The frames of one capture file of either format. Raises DamagedFile."""
    reader = open_reader(file)
    while batch := reader.next_batch():
        yield from batch


def open_reader(file: io.BufferedIOBase) -> FrameReader:
    """What reads a capture file, by how it begins. Raises DamagedFile."""
    buffer = _Buffer(file)
    buffer.fill(4)
    if buffer.data.startswith(_GZIP_MAGIC):
        # What was read is put back in front: standard input can't seek.
        buffer = _Buffer(gzip.GzipFile(fileobj=cast(BinaryIO, _Rejoined(buffer.data, file))))
        buffer.fill(4)
    magic = buffer.data[:4]
    if magic in _PCAP_MAGICS:
        return _PcapReader(buffer, *_PCAP_MAGICS[magic])
    if magic == _PCAPNG_MAGIC:
        return _PcapngReader(buffer)
    if not magic:
        raise DamagedFile("is empty: a capture has a header at least")
    raise DamagedFile(f"is no capture file: it begins with {magic.hex()}; pcap and pcapng are read")


class _Rejoined(io.RawIOBase):
    """Bytes that were read already, and the file that they were read from."""

    def __init__(self, head: bytes, rest: io.BufferedIOBase) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._head and size > 0:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._rest.read1(size)


class _Buffer:
    """What was read of a file; what lies before `pos` was taken."""

    __slots__ = ("_can_go_back", "_file", "data", "pos")

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self._can_go_back = not isinstance(file, gzip.GzipFile) and file.seekable()
        self.data = b""
        self.pos = 0

    def fill(self, size: int) -> bool:
        """Waits until `size` bytes are there, and takes what comes with them; False when the file ends before."""
        rest = self.data[self.pos :]
        self.pos = 0
        self.data = b""
        if self._can_go_back:
            # To read the rest once more costs less than to join the next chunk to it.
            self._file.seek(-len(rest), os.SEEK_CUR)
        else:
            self.data = rest
        while len(self.data) < size:
            # A record that is longer than a chunk is read in one piece: joining chunks would copy it again and again.
            missing = size - len(self.data)
            more = self._file.read1(_CHUNK_BYTES) if missing <= _CHUNK_BYTES else self._file.read(missing)
            if not more:
                self.data = self.data or rest  # which is gone, when the file was emptied meanwhile
                return False
            self.data += more
        return True


class FrameReader:
    """Reads frames of one file. A class for each format."""

    __slots__ = ("_buffer", "_number")

    def __init__(self, buffer: _Buffer) -> None:
        self._buffer = buffer
        self._number = 1  # of the record that comes next, for who looks for the damage

    def next_batch(self) -> list[Frame]:
        """The frames that are there, when there are none those that come next; none at the end. Raises DamagedFile when
        all frames before the damage were given.
        """
        while True:
            batch: list[Frame] = []
            try:
                needed = self._take(batch)
            except DamagedFile:
                if batch:
                    return batch  # the damage is met again, as the first that comes next
                raise
            if batch:
                return batch
            if not self._buffer.fill(needed):
                if not self._buffer.data:
                    return batch
                raise DamagedFile(f"ends in the middle of {self._record()} {self._number}: it was cut off")

    def _take(self, batch: list[Frame]) -> int:
        """Takes all whole records off the buffer; how many bytes the next one needs, so far as that can be told."""
        raise NotImplementedError

    def _record(self) -> str:
        """What the format calls it."""
        raise NotImplementedError


class _PcapReader(FrameReader):
    """pcap: a file header, and packets with a header each."""

    __slots__ = ("_header_bytes", "_is_little", "_link_type", "_unit_ns")

    def __init__(self, buffer: _Buffer, order: str, unit_ns: int, header_bytes: int) -> None:
        super().__init__(buffer)
        self._is_little = order == "<"
        self._unit_ns = unit_ns
        self._header_bytes = header_bytes
        if not buffer.fill(pcap.FileHdr.__hdr_len__):
            raise DamagedFile("ends in the middle of header 1: it was cut off")
        # The upper bits of the link type tell about frame check sequences (draft section 4).
        self._link_type = _u32(buffer.data, 20, self._is_little) & 0x0FFFFFFF
        buffer.pos = pcap.FileHdr.__hdr_len__

    def _record(self) -> str:
        return "packet"

    def _take(self, batch: list[Frame]) -> int:
        buffer = self._buffer
        data = buffer.data
        pos: i64 = buffer.pos
        end: i64 = len(data)
        header_bytes: i64 = self._header_bytes
        unit_ns: i64 = self._unit_ns
        is_little = self._is_little
        link_type = self._link_type
        needed = header_bytes
        while pos + header_bytes <= end:
            fraction_ns = _u32(data, pos + 4, is_little) * unit_ns
            size = _u32(data, pos + 8, is_little)
            if size > MAX_RECORD_BYTES or fraction_ns >= 2 * _NS:
                raise DamagedFile(f"packet {self._number} has an impossible header ({size} bytes): the file is damaged")
            start = pos + header_bytes
            if start + size > end:
                needed = header_bytes + size
                break
            seconds = _u32(data, pos, is_little)
            ts_ns = seconds * _NS + fraction_ns
            pos = buffer.pos = start + size
            self._number += 1
            batch.append(Frame(ts_ns, link_type, data, start, pos))
        return needed


class _Interface(NamedTuple):
    link_type: int
    units_a_second: int
    offset_ns: int


class _PcapngReader(FrameReader):
    """pcapng: blocks of all sections (draft section 3)."""

    __slots__ = ("_interfaces", "_order", "_ts_ns")

    def __init__(self, buffer: _Buffer) -> None:
        super().__init__(buffer)
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self._ts_ns = 0

    def _record(self) -> str:
        return "block"

    def _take(self, batch: list[Frame]) -> int:
        buffer = self._buffer
        data = buffer.data
        number = self._number
        while True:
            pos = buffer.pos
            left = len(data) - pos
            if left < 12:
                return 12
            is_section = data[pos : pos + 4] == _PCAPNG_MAGIC
            if is_section:
                orders = {struct.pack(o + "I", pcapng.BYTE_ORDER_MAGIC): o for o in "<>"}
                order = orders.get(data[pos + 8 : pos + 12])
                if order is None:
                    raise DamagedFile(f"block {number} has no byte order mark: the file is damaged")
            else:
                order = self._order
            size = _block_bytes(order, data[pos + 4 : pos + 8], number)
            if left < size:
                return size
            if is_section:
                self._order = order
                self._interfaces = []
            else:
                kind = _u32(data, pos, order == "<")
                try:
                    self._block(kind, data[pos + 8 : pos + size], batch)
                except (struct.error, IndexError):
                    raise DamagedFile(f"block {number} contradicts the blocks before it: the file is damaged") from None
            buffer.pos = pos + size
            number = self._number = number + 1

    def _block(self, kind: int, body: bytes, batch: list[Frame]) -> None:
        """Any block but a section's header; of `body` the last four bytes are the block's length again."""
        order = self._order
        interfaces = self._interfaces
        if kind == pcapng.PCAPNG_BT_IDB:
            if len(interfaces) >= MAX_INTERFACES:
                raise DamagedFile(f"block {self._number}: more than {MAX_INTERFACES} interfaces")
            interfaces.append(_interface(order, body[:-4]))
        elif kind == pcapng.PCAPNG_BT_EPB or kind == pcapng.PCAPNG_BT_PB:
            fields = order + ("IIIII" if kind == pcapng.PCAPNG_BT_EPB else "H2xIIII")
            index, high, low, size, _ = struct.unpack_from(fields, body)
            interface = interfaces[index]
            ts_ns = (high << 32 | low) * _NS // interface.units_a_second + interface.offset_ns
            if abs(ts_ns) >= MAX_TIME_NS:
                raise DamagedFile(f"block {self._number} has an impossible time: the file is damaged")
            self._ts_ns = ts_ns
            if 20 + size > len(body) - 4:
                raise DamagedFile(f"block {self._number} is shorter than its packet: the file is damaged")
            batch.append(Frame(self._ts_ns, interface.link_type, body, 20, 20 + size))
        elif kind == pcapng.PCAPNG_BT_SPB:
            # It has no time of its own: it counts as captured with the packet before it.
            size = min(struct.unpack_from(order + "I", body)[0], len(body) - 8)
            if size < 0:
                raise DamagedFile(f"block {self._number} is shorter than its header: the file is damaged")
            batch.append(Frame(self._ts_ns, interfaces[0].link_type, body, 4, 4 + size))


def _u32(data: bytes, pos: i64, is_little: bool) -> i64:
    a: i64 = data[pos]
    b: i64 = data[pos + 1]
    c: i64 = data[pos + 2]
    d: i64 = data[pos + 3]
    return a | b << 8 | c << 16 | d << 24 if is_little else a << 24 | b << 16 | c << 8 | d


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
