"""Fragments: what is joined, what is refused, and every bound."""

from vxsniff.wire import defrag
from vxsniff.wire.defrag import Defragmenter

SECOND = 1_000_000_000


def key(number):
    return (1, b"a", 6, number)


def test_a_packet_is_whole_with_its_last_missing_piece():
    fragments = Defragmenter()
    assert fragments.add(key(1), 8, True, b"b" * 8, 0) is None
    assert fragments.add(key(1), 16, False, b"c", 0) is None
    assert fragments.add(key(1), 0, True, b"a" * 8, 0) == b"a" * 8 + b"b" * 8 + b"c"
    assert (len(fragments), fragments.held_bytes, fragments.joined) == (0, 0, 1)


def test_the_same_fragment_twice_does_no_harm():
    fragments = Defragmenter()
    for _ in range(2):
        assert fragments.add(key(1), 0, True, b"a" * 8, 0) is None
    assert fragments.add(key(1), 8, False, b"b", 0) == b"a" * 8 + b"b"


def test_overlapping_fragments_discard_the_packet():
    for offset, payload in ((0, b"x" * 8), (4, b"y" * 8), (0, b"z" * 16)):
        fragments = Defragmenter()
        fragments.add(key(1), 0, True, b"a" * 8, 0)
        assert fragments.add(key(1), offset, True, payload, 0) is None
        assert (len(fragments), fragments.held_bytes, fragments.invalid) == (0, 0, 1)


def test_a_fragment_behind_the_end_discards_the_packet():
    fragments = Defragmenter()
    fragments.add(key(1), 8, False, b"end", 0)
    fragments.add(key(1), 16, True, b"b" * 8, 0)
    assert (len(fragments), fragments.invalid) == (0, 1)


def test_a_packet_longer_than_ip_allows_is_refused():
    fragments = Defragmenter()
    fragments.add(key(1), 65528, True, b"b" * 16, 0)
    assert (len(fragments), fragments.invalid) == (0, 1)


def test_an_incomplete_packet_waits_only_so_long():
    fragments = Defragmenter()
    fragments.add(key(1), 0, True, b"a" * 8, 0)
    fragments.expire(defrag.WAIT_NS - 1)
    assert len(fragments) == 1
    fragments.expire(defrag.WAIT_NS)
    assert (len(fragments), fragments.held_bytes, fragments.expired) == (0, 0, 1)


def test_beyond_the_bound_of_packets_the_oldest_goes():
    fragments = Defragmenter()
    for number in range(defrag.MAX_PACKETS + 10):
        fragments.add(key(number), 0, True, b"a" * 8, 0)
    assert (len(fragments), fragments.evicted) == (defrag.MAX_PACKETS, 10)
    assert fragments.add(key(5), 8, False, b"b", 0) is None  # gone: this begins anew
    assert fragments.add(key(50), 8, False, b"b", 0) == b"a" * 8 + b"b"


def test_beyond_the_bound_of_bytes_the_oldest_goes():
    fragments = Defragmenter()
    for number in range(2 * defrag.MAX_BYTES // 60_000):
        fragments.add(key(number), 0, True, b"a" * 60_000, 0)
        assert fragments.held_bytes <= defrag.MAX_BYTES
    assert fragments.evicted > 0


def test_a_packet_of_too_many_fragments_is_refused():
    fragments = Defragmenter()
    for number in range(defrag.MAX_FRAGMENTS + 1):
        fragments.add(key(1), number * 8, True, b"a" * 8, 0)
    assert (len(fragments), fragments.invalid) == (0, 1)
