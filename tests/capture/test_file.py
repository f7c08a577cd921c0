"""Capture files of both formats, whole and damaged."""

import gzip
import io
import os
import random
import struct
import zlib

import pytest
from dpkt import pcap, pcapng

from vxsniff.capture.file import CaptureFiles, DamagedFile, open_reader, read_frames

FRAMES = [(1_700_000_000_000_000_000 + n * 1_000_001, b"frame %d" % n) for n in range(5)]


def pcap_bytes(order="<", nano=True, link_type=1, frames=FRAMES):
    magic = pcap.TCPDUMP_MAGIC_NANO if nano else pcap.TCPDUMP_MAGIC
    out = struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 65535, link_type)
    for ts_ns, data in frames:
        fraction = ts_ns % 10**9 // (1 if nano else 1000)
        out += struct.pack(order + "IIII", ts_ns // 10**9, fraction, len(data), len(data)) + data
    return out


def block(kind, body, order="<"):
    body += b"\0" * (-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def section(order="<"):
    return block(pcapng.PCAPNG_BT_SHB, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link_type, resolution=None, offset_s=0, order="<"):
    options = b""
    if resolution is not None:
        options += struct.pack(order + "HHB3x", 9, 1, resolution)
    if offset_s:
        options += struct.pack(order + "HHq", 14, 8, offset_s)
    return block(pcapng.PCAPNG_BT_IDB, struct.pack(order + "HHI", link_type, 0, 0) + options, order)


def packet(index, units, data, order="<"):
    head = struct.pack(order + "IIIII", index, units >> 32, units & 0xFFFFFFFF, len(data), len(data))
    return block(pcapng.PCAPNG_BT_EPB, head + data, order)


def told(frame):
    return frame.ts_ns, frame.link_type, frame.data


def frames_of(data):
    return [told(frame) for frame in read_frames(io.BytesIO(data))]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcap_in_both_byte_orders_and_resolutions(order):
    assert frames_of(pcap_bytes(order)) == [(ts, 1, data) for ts, data in FRAMES]
    assert frames_of(pcap_bytes(order, nano=False)) == [(ts // 1000 * 1000, 1, data) for ts, data in FRAMES]


def test_the_link_type_is_the_files():
    assert {link_type for _, link_type, _ in frames_of(pcap_bytes(link_type=113))} == {113}


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_with_several_interfaces_of_several_link_types_and_resolutions(order):
    data = section(order) + interface(1, order=order) + interface(113, 9, order=order)
    data += packet(0, 1_700_000_000_000_001, b"micro", order) + packet(1, 1_700_000_000_000_000_002, b"nano", order)
    data += interface(101, 0x80 | 10, 5, order) + packet(2, 1_700_000_000 << 10 | 512, b"binary", order)
    assert frames_of(data) == [
        (1_700_000_000_000_001_000, 1, b"micro"),
        (1_700_000_000_000_000_002, 113, b"nano"),
        (1_700_000_005_500_000_000, 101, b"binary"),
    ]


def test_pcapng_sections_each_have_their_own_interfaces_and_byte_order():
    first = section("<") + interface(1) + packet(0, 1000, b"one")
    second = section(">") + interface(113, order=">") + packet(0, 2000, b"two", ">")
    unknown = block(0x0BAD, b"whatever")
    assert frames_of(first + unknown + second) == [(10**6, 1, b"one"), (2 * 10**6, 113, b"two")]


def test_simple_and_old_packet_blocks_are_read():
    old = struct.pack("<HHIIII", 0, 0, 0, 1000, 3, 3) + b"old"
    data = section() + interface(1) + block(pcapng.PCAPNG_BT_PB, old)
    data += block(pcapng.PCAPNG_BT_SPB, struct.pack("<I", 6) + b"simple")
    assert frames_of(data) == [(10**6, 1, b"old"), (10**6, 1, b"simple")]


def test_a_simple_packet_block_without_a_length_is_damage():
    with pytest.raises(DamagedFile, match="shorter than its header"):
        frames_of(section() + interface(1) + struct.pack("<III", pcapng.PCAPNG_BT_SPB, 12, 12))


def test_what_dpkt_writes_is_read():
    out = io.BytesIO()
    writer = pcapng.Writer(out)
    writer.writepkt(b"hello", ts=1_700_000_000.5)
    assert frames_of(out.getvalue()) == [(1_700_000_000_500_000_000, 1, b"hello")]


def test_gzip_around_a_capture_is_undone():
    assert frames_of(gzip.compress(pcap_bytes())) == frames_of(pcap_bytes())


PCAPNG = section() + interface(1) + b"".join(packet(0, ts // 1000, data) for ts, data in FRAMES)


@pytest.mark.parametrize("data", [pcap_bytes(), PCAPNG], ids=["pcap", "pcapng"])
def test_a_truncated_file_gives_the_frames_before_the_end_and_says_so(data):
    whole = frames_of(data)
    for size in range(len(data)):
        got = []
        try:
            for frame in read_frames(io.BytesIO(data[:size])):
                got.append(told(frame))
        except DamagedFile as damage:
            assert str(damage)
        else:
            # Cut exactly between two records nothing is missing that could be known.
            assert data.startswith(data[:size])
        assert got == whole[: len(got)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty"),
        (b"<html>", "is no capture file"),
        (b"PK\3\4zip", "is no capture file"),
        (b"\x1f\x8b\x08\0" + b"\xff" * 20, "invalid"),
    ],
)
def test_a_foreign_file_is_named_as_such(data, text):
    with pytest.raises((DamagedFile, OSError, EOFError, zlib.error), match=text):
        frames_of(data)


def test_a_record_of_impossible_size_is_damage_not_memory():
    data = pcap_bytes(frames=FRAMES[:1]) + struct.pack("<IIII", 1, 1, 2**31, 2**31)
    with pytest.raises(DamagedFile, match="impossible"):
        frames_of(data)


def test_a_time_that_no_clock_shows_is_damage():
    frame = packet(0, 2**64 - 1, b"x")
    for data in (section() + interface(1) + frame, section() + interface(1, 9, offset_s=2**40) + packet(0, 1, b"x")):
        with pytest.raises(DamagedFile, match="impossible time"):
            frames_of(data)


def test_any_damage_ends_in_one_kind_of_error():
    draw = random.Random(4)
    for base in (pcap_bytes(), PCAPNG):
        for _ in range(5000):
            data = bytearray(base[: draw.randrange(len(base) + 1)])
            for _ in range(draw.randrange(4)):
                if data:
                    data[draw.randrange(len(data))] = draw.randrange(256)
            try:
                frames_of(bytes(data))
            except (DamagedFile, OSError, EOFError, zlib.error):
                pass


def test_several_files_are_merged_by_time_and_damage_in_one_spares_the_others(tmp_path):
    even, odd = tmp_path / "even.pcap", tmp_path / "odd.pcapng"
    even.write_bytes(pcap_bytes(frames=FRAMES[::2])[:-3])
    odd.write_bytes(section() + interface(1, 9) + b"".join(packet(0, ts, data) for ts, data in FRAMES[1::2]))
    files = CaptureFiles([str(odd), str(even)])
    assert [frame.data for frame in files.frames()] == [data for _, data in FRAMES[:4]]
    files.close()
    assert len(files.errors) == 1
    assert "even.pcap: ends in the middle of packet 3" in files.errors[0]
    assert files.total_bytes == even.stat().st_size + odd.stat().st_size


def test_a_file_that_is_not_there_raises_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        CaptureFiles([str(tmp_path / "no.pcap")])
    with pytest.raises(IsADirectoryError):
        CaptureFiles([str(tmp_path)])


class Pipe(io.BytesIO):
    """Gives what was written to it piece by piece, and counts how often it was asked."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)
        self.asked = 0

    def seekable(self):
        return False

    def read1(self, size=-1):
        self.asked += 1
        if not self.pieces:
            return b""
        piece, self.pieces[0] = self.pieces[0][:size], self.pieces[0][size:]
        if not self.pieces[0]:
            del self.pieces[0]
        return piece

    def read(self, size=-1):
        taken = b""
        while self.pieces and len(taken) < size:
            taken += self.read1(size - len(taken))
        return taken


@pytest.mark.parametrize("data", [pcap_bytes(), PCAPNG, gzip.compress(pcap_bytes())], ids=["pcap", "pcapng", "gzip"])
@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_frames_do_not_depend_on_the_pieces_that_a_pipe_gives(data, size):
    pipe = Pipe(*(data[at : at + size] for at in range(0, len(data), size)))
    assert [told(frame) for frame in read_frames(pipe)] == frames_of(data)


def test_frames_across_the_pieces_that_a_file_is_read_in_are_whole(tmp_path):
    """On disk, where reading goes back to where such a frame begins, and through a pipe, where it can't."""
    frames = [(n, random.Random(n).randbytes(size)) for n, size in enumerate((1400, 60, 9000, 300_000, 5) * 40)]
    data = pcap_bytes(frames=frames)
    path = tmp_path / "long.pcap"
    path.write_bytes(b"before" + data)
    given = [(ts_ns, 1, frame) for ts_ns, frame in frames]
    assert frames_of(data) == given
    assert [told(frame) for frame in read_frames(Pipe(data))] == given
    with open(path, "rb") as file:
        file.seek(6)  # as a shell may hand it over
        assert [told(frame) for frame in read_frames(file)] == given


@pytest.mark.parametrize(
    "pieces",
    [(pcap_bytes(frames=FRAMES[:2]), pcap_bytes(frames=FRAMES[2:])[24:]), (PCAPNG[: len(PCAPNG) // 2], PCAPNG)],
)
def test_no_frame_waits_for_the_next_to_come(pieces):
    """`tcpdump -U -w - | vxsniff --read -`: what is here is given before more is asked for."""
    pipe = Pipe(*pieces)
    reader = open_reader(pipe)
    assert reader.next_batch()
    assert pipe.asked == 1


@pytest.mark.parametrize("left_bytes", [0, 300_000])
def test_a_file_that_is_cut_off_while_it_is_read_is_told(tmp_path, left_bytes):
    path = tmp_path / "rotated.pcap"
    path.write_bytes(pcap_bytes(frames=[(n, bytes(1000)) for n in range(1000)]))
    files = CaptureFiles([str(path)])
    count = 0
    for batch in files.batches():
        count += len(batch)
        os.truncate(path, left_bytes)
    files.close()
    assert 0 < count < 1000
    (error,) = files.errors
    assert f"ends in the middle of packet {count + 1}" in error


@pytest.mark.parametrize("size", [300_000, 1_000_000])
def test_a_record_longer_than_what_is_read_at_once_is_read(size):
    frames = [FRAMES[0], (FRAMES[1][0], bytes(size)), FRAMES[2]]
    assert [len(data) for _, _, data in frames_of(pcap_bytes(frames=frames))] == [7, size, 7]
    pieces = pcap_bytes(frames=frames)
    pipe = Pipe(*(pieces[at : at + 65_536] for at in range(0, len(pieces), 65_536)))
    assert [len(frame.data) for frame in read_frames(pipe)] == [7, size, 7]


def test_frames_of_a_pipe_that_is_merged_with_a_file_do_not_wait_for_more(tmp_path):
    other = tmp_path / "other.pcap"
    other.write_bytes(pcap_bytes(frames=[]))
    reading, writing = os.pipe()
    os.write(writing, pcap_bytes(frames=FRAMES[:3]))
    files = CaptureFiles([f"/dev/fd/{reading}", str(other)])
    batches = files.batches()
    got = []
    for _ in range(3):
        batch = next(batches)
        assert files.in_hand is batch
        got += [frame.data for frame in batch]
    assert got == [data for _, data in FRAMES[:3]]
    os.close(writing)
    assert list(batches) == []
    files.close()
    os.close(reading)
