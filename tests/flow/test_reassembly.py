"""One direction: pieces in any order, first copy wins. The whole state is looked at after each step."""

from hypothesis import given
from hypothesis import strategies as st

from vxsniff.flow.reassembly import HELD_OVERHEAD_BYTES, HalfStream, Piece, trim_front


def piece(pos, payload, missing=0):
    return Piece(pos, payload, missing, 0, 0)


def held(half):
    return [(p.pos, p.payload, p.missing_bytes) for p in half.held]


def started(seq=1000):
    half = HalfStream()
    half.synchronise(seq)
    return half


def test_pieces_ahead_are_held_in_order_and_charged():
    half = started()
    assert half.hold(piece(20, b"cc")) == 0
    assert half.hold(piece(10, b"aa")) == 0
    assert held(half) == [(10, b"aa", 0), (20, b"cc", 0)]
    assert half.held_bytes == 4 + 2 * HELD_OVERHEAD_BYTES
    assert half.has_hole
    assert half.hole_end() == 10
    assert half.take_ready() == []


def test_the_first_copy_of_a_byte_wins():
    half = started()
    half.hold(piece(10, b"FIRST"))
    assert half.hold(piece(8, b"..later...")) == 5
    assert held(half) == [(8, b"..", 0), (10, b"FIRST", 0), (15, b"...", 0)]


def test_a_copy_of_what_is_held_is_all_duplicate():
    half = started()
    half.hold(piece(10, b"abcdef"))
    assert half.hold(piece(11, b"XYZ")) == 3
    assert half.hold(piece(10, b"ABCDEF")) == 6
    assert held(half) == [(10, b"abcdef", 0)]


def test_what_lies_before_the_expected_byte_is_cut_off():
    half = started()
    half.advance(5)
    assert half.hold(piece(2, b"abcdef")) == 3
    assert held(half) == [(5, b"def", 0)]


def test_what_a_cut_piece_promised_keeps_its_place():
    half = started()
    half.hold(piece(10, b"ab", missing=8))
    assert half.hold(piece(10, b"abcdef")) == 6
    assert half.hold(piece(15, b"defghijk")) == 5
    assert held(half) == [(10, b"ab", 8), (20, b"ijk", 0)]
    assert trim_front(piece(10, b"ab", 8), 15) == (piece(15, b"", 5), 2)


def test_ready_pieces_are_those_without_a_hole_before_them():
    half = started()
    for pos in (0, 2, 10):
        half.hold(piece(pos, b"xx"))
    assert [p.pos for p in half.take_ready()] == [0, 2]
    assert held(half) == [(10, b"xx", 0)]
    half.take_all()
    assert half.held_bytes == 0


def test_positions_survive_the_wrap():
    half = started(2**32 - 4)
    assert half.position(2**32 - 4) == 0
    assert half.position(2) == 6
    half.advance(8)
    assert half.next_seq == 4
    assert half.position(2**32 - 1) == 3
    assert half.seq(8) == 4


def test_synchronising_moves_what_is_held_and_drops_what_lies_before():
    half = HalfStream()
    half.origin_seq = half.next_seq = 5000
    half.hold(piece(-10, b"old"))
    half.hold(piece(0, b"new"))
    half.synchronise(4998)
    assert held(half) == [(2, b"new", 0)]


PIECES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=25)


@given(PIECES)
def test_any_pieces_of_one_stream_give_its_bytes_once_and_the_sum_closes(spans):
    stream = bytes(range(100))
    half = started()
    came = duplicate = 0
    got = {}
    for pos, size in spans:
        payload = stream[pos : pos + size]
        came += len(payload)
        if pos + size <= half.next_pos:
            duplicate += len(payload)
            continue
        duplicate += half.hold(piece(pos, payload))
        for ready in half.take_ready():
            assert ready.pos == half.next_pos
            got.update({ready.pos + i: byte for i, byte in enumerate(ready.payload)})
            half.advance(len(ready.payload))
    left = sum(len(p.payload) for p in half.held)
    assert came == duplicate + len(got) + left
    assert all(stream[pos] == byte for pos, byte in got.items())
    assert half.held_bytes == left + half.held_segments * HELD_OVERHEAD_BYTES
    covered = {pos for start, size in spans for pos in range(start, start + size)}
    assert set(got) | {p.pos + i for p in half.held for i in range(len(p.payload))} == covered
