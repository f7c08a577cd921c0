"""Connections in playbook style: segments go in, what the consumer was told comes out."""

import pytest

from vxsniff.flow import reassembly, table
from vxsniff.flow.flow import Consumer
from vxsniff.flow.table import FlowTable
from vxsniff.wire.segment import ACK, FIN, RST, SYN, Segment, reverse_key

C = b"\x0a\0\0\1\x0a\0\0\2\x9c\x40\0\x50"
S = reverse_key(C)
SECOND = 1_000_000_000
MS = 1_000_000


class Told(Consumer):
    """A consumer that writes down what it is told."""

    def __init__(self, book, flow):
        self.book = book
        self.flow = flow

    def data(self, side, seq, ack, ts_ns, payload):
        if payload == b"not ours":
            self.flow.ignored = True
        if self.book and self.book[-1][:2] == ("data", side) and self.book[-1][3] == seq:
            _, _, text, _ = self.book.pop()
            payload = text + payload
            seq -= len(text)
        self.book.append(("data", side, payload, (seq + len(payload)) % 2**32))

    def gap(self, side, missing_bytes, cut, ts_ns):
        self.book.append(("cut" if cut else "gap", side, missing_bytes))

    def end(self, side, ts_ns):
        self.book.append(("end", side))

    def closed(self, ts_ns):
        self.book.append(("closed",))


class Game:
    def __init__(self, **options):
        self.book = []
        self.now = 1_000 * SECOND
        self.table = FlowTable(
            lambda flow: Told(self.book, flow), lambda data: data.startswith((b"GET", b"HTTP/1.")), **options
        )

    def seg(self, key, seq, payload=b"", flags=ACK, ack=0, vni=1, missing=0):
        self.now += MS
        self.table.segment(Segment(vni, key, seq % 2**32, ack % 2**32, flags, payload, missing, self.now))
        return self

    def handshake(self, client_isn=100, server_isn=900, vni=1, key=C):
        self.seg(key, client_isn, flags=SYN, vni=vni)
        return self.seg(reverse_key(key), server_isn, flags=SYN | ACK, ack=client_isn + 1, vni=vni)

    def wait(self, seconds):
        end = self.now + int(seconds * SECOND)
        while self.now < end:
            self.now = min(end, self.now + 50 * MS)
            self.table.advance(self.now)
        return self

    def told(self):
        """What was told since the last look; where data ends is left out. The sum closes at every look."""
        t = self.table
        held = sum(len(p.payload) for f in flows(t) for h in f.halves for p in h.held)
        parts = (t.delivered_bytes, t.duplicate_bytes, t.ignored_bytes, t.midstream_bytes)
        parts += (t.out_of_window_bytes, t.after_end_bytes, t.evicted_bytes, held)
        assert t.payload_bytes == sum(parts), parts
        assert t.held_bytes == sum(h.held_bytes for f in flows(t) for h in f.halves)
        told = [entry[:3] for entry in self.book]
        self.book.clear()
        return told


def flows(t):
    found = []
    for flow in t._flows.values():
        while flow is not None:
            if flow not in found:
                found.append(flow)
            flow = flow.next_same
    return found


def test_bytes_in_order_are_given_on_at_once():
    game = Game().handshake()
    game.seg(C, 101, b"GET ").seg(C, 105, b"/").seg(S, 901, b"HTTP/1.1")
    assert game.told() == [("data", 0, b"GET /"), ("data", 1, b"HTTP/1.1")]


def test_segments_out_of_order_are_put_in_order():
    game = Game().handshake().seg(C, 105, b"two ").seg(C, 109, b"three").seg(C, 101, b"one ")
    assert game.told() == [("data", 0, b"one two three")]


def test_retransmissions_and_keep_alive_probes_are_dropped():
    game = Game().handshake().seg(C, 101, b"GET /").seg(C, 101, b"GET /").seg(C, 105, b"x").seg(C, 105, b"")
    assert game.told() == [("data", 0, b"GET /")]
    assert game.table.duplicate_bytes == 6


def test_a_retransmission_that_carries_more_gives_what_is_new():
    game = Game().handshake().seg(C, 101, b"GET ").seg(C, 101, b"GET /index")
    assert game.told() == [("data", 0, b"GET /index")]


def test_a_hole_that_the_other_side_acknowledged_is_lost_after_the_time_for_reordering():
    game = Game().handshake().seg(C, 101, b"one ").seg(C, 109, b"three").seg(S, 901, ack=114)
    assert game.told() == [("data", 0, b"one ")]
    game.wait(0.2)
    assert game.told() == []
    game.wait(0.1)
    assert game.told() == [("gap", 0, 4), ("data", 0, b"three")]
    assert game.table.lost_bytes == 4


def test_a_late_segment_fills_the_hole_before_it_is_given_up():
    game = Game().handshake().seg(C, 105, b"two").seg(S, 901, ack=108).wait(0.2).seg(C, 101, b"one ").wait(1)
    assert game.told() == [("data", 0, b"one two")]
    assert game.table.lost_bytes == 0


def test_every_hole_has_its_own_time():
    game = Game().handshake().seg(C, 105, b"b").seg(S, 901, ack=106).seg(C, 101, b"aaaa").wait(0.22)
    game.seg(C, 110, b"d").seg(S, 901, ack=111).wait(0.2)
    assert game.told() == [("data", 0, b"aaaab")]
    game.seg(C, 106, b"cccc")
    assert game.told() == [("data", 0, b"ccccd")]
    assert game.table.lost_bytes == 0


def test_a_hole_that_nobody_acknowledged_waits_longer():
    game = Game().handshake().seg(C, 105, b"two").wait(9.9)
    assert game.told() == []
    assert game.wait(0.2).told() == [("gap", 0, 4), ("data", 0, b"two")]


def test_bytes_that_were_acknowledged_and_never_seen_are_a_hole_too():
    game = Game().handshake().seg(C, 101, b"one").seg(S, 901, ack=110).wait(0.5)
    assert game.told() == [("data", 0, b"one"), ("gap", 0, 6)]


def test_an_acknowledged_fin_that_was_lost_is_no_hole():
    game = Game().handshake().seg(C, 101, b"one").seg(S, 901, ack=105).wait(20)
    assert game.told() == [("data", 0, b"one")]
    assert game.table.lost_bytes == 0


def test_a_frame_that_was_cut_short_is_a_gap_of_known_size():
    game = Game().handshake().seg(C, 101, b"GET /", missing=10).seg(C, 116, b"rest")
    assert game.told() == [("data", 0, b"GET /"), ("cut", 0, 10), ("data", 0, b"rest")]
    assert game.table.cut_bytes == 10


def test_sequence_numbers_wrap():
    game = Game().handshake(2**32 - 3, 2**32 - 2)
    game.seg(C, 2**32 + 2, b"two").seg(C, 2**32 - 2, b"one ").seg(S, 2**32 - 1, b"HTTP/1.")
    assert game.told() == [("data", 0, b"one two"), ("data", 1, b"HTTP/1.")]


def test_fin_ends_a_side_and_both_close_the_flow():
    game = Game().handshake().seg(C, 101, b"GET").seg(C, 104, flags=FIN | ACK)
    assert game.told() == [("data", 0, b"GET"), ("end", 0)]
    game.seg(S, 901, b"HTTP/1.").seg(S, 908, flags=FIN | ACK)
    assert game.told() == [("data", 1, b"HTTP/1."), ("end", 1), ("closed",)]


def test_a_fin_that_overtakes_data_waits_for_it():
    game = Game().handshake().seg(C, 104, flags=FIN | ACK).seg(S, 901, b"HTTP/1.").seg(C, 101, b"GET")
    assert game.told() == [("data", 1, b"HTTP/1."), ("data", 0, b"GET"), ("end", 0)]


def test_data_behind_a_fin_is_counted_and_dropped():
    game = Game().handshake().seg(C, 101, b"GET").seg(C, 104, flags=FIN | ACK).seg(C, 104, b"more")
    assert game.told() == [("data", 0, b"GET"), ("end", 0)]
    assert game.table.after_end_bytes == 4


def test_what_is_held_beyond_a_fin_is_dropped_when_the_fin_is_reached():
    game = (
        Game()
        .handshake()
        .seg(C, 105, b"beyond")
        .seg(C, 120, b"and far")
        .seg(C, 103, flags=FIN | ACK)
        .seg(C, 101, b"GET/")
    )
    assert game.told() == [("data", 0, b"GE"), ("end", 0)]
    assert game.table.after_end_bytes == 15
    assert game.wait(20).told() == []


def test_late_copies_of_a_closed_flow_begin_nothing():
    game = Game().handshake().seg(C, 101, b"GET").seg(C, 104, flags=FIN | ACK).seg(S, 901, flags=FIN | ACK)
    game.told()
    game.seg(C, 101, b"GET").seg(S, 900, flags=SYN | ACK, ack=101).wait(1)
    assert game.told() == []
    assert game.table.flows_opened == 1


def test_a_reset_closes_after_the_time_for_reordering():
    game = Game().handshake().seg(S, 901, flags=RST).seg(C, 101, b"GET")
    assert game.told() == [("data", 0, b"GET")]
    assert game.wait(0.5).told() == [("closed",)]


def test_a_reset_far_outside_the_window_is_a_forgery():
    game = Game().handshake().seg(C, 101, b"GET").seg(S, 901 + 2**30, flags=RST).wait(1).seg(C, 104, b" /")
    assert game.told() == [("data", 0, b"GET /")]


def test_a_new_connection_on_the_same_ports_is_a_new_flow():
    game = Game().handshake().seg(C, 101, b"GET 1")
    game.handshake(700_000, 800_000).seg(C, 700_001, b"GET 2")
    assert game.told() == [("data", 0, b"GET 1"), ("closed",), ("data", 0, b"GET 2")]
    assert game.table.port_reuses == 1


def test_a_syn_once_more_is_no_new_connection():
    game = Game().handshake().seg(C, 101, b"GET ").seg(C, 100, flags=SYN).seg(C, 105, b"/")
    assert game.told() == [("data", 0, b"GET /")]


def test_the_syn_tells_the_client_whichever_comes_first():
    for first in (0, 1):
        game = Game()
        syn = (C, 100, b"", SYN, 0)
        syn_ack = (S, 900, b"", SYN | ACK, 101)
        for args in (syn, syn_ack) if first == 0 else (syn_ack, syn):
            game.seg(*args)
        (flow,) = flows(game.table)
        assert (flow.key if flow.client == 0 else reverse_key(flow.key)) == C


def test_a_flow_without_a_syn_begins_at_a_message():
    game = Game().seg(C, 5000, b"tail of a body").seg(C, 5014, b"GET /").wait(0.5)
    assert game.told() == [("data", 0, b"GET /")]
    assert (game.table.flows_midstream, game.table.midstream_bytes) == (1, 14)


def test_a_flow_without_a_syn_puts_its_first_segments_in_order():
    game = Game().seg(C, 5004, b"/x").seg(C, 5000, b"GET ").wait(0.5).seg(C, 5006, b"y")
    assert game.told() == [("data", 0, b"GET /xy")]


def test_a_flow_without_a_syn_searches_on():
    game = Game().seg(C, 5000, b"body").wait(0.5).seg(C, 5004, b"body").wait(0.5).seg(C, 5008, b"GET /").wait(0.5)
    assert game.told() == [("data", 0, b"GET /")]
    assert game.table.midstream_bytes == 8


def test_a_late_syn_is_not_taken_for_a_new_connection():
    game = Game().seg(C, 101, b"GET /").wait(0.5).seg(C, 100, flags=SYN).seg(C, 106, b"x")
    assert game.told() == [("data", 0, b"GET /x")]


def test_twins_of_two_mirrors_are_one_flow():
    game = Game().handshake().handshake(vni=2)
    for vni in (1, 2):
        game.seg(C, 101, b"GET", vni=vni)
    for vni in (2, 1):
        game.seg(S, 901, b"HTTP/1.", ack=104, vni=vni)
    assert game.told() == [("data", 0, b"GET"), ("data", 1, b"HTTP/1.")]
    assert game.table.flows_joined == 1
    assert game.table.duplicate_bytes == 10


def test_twins_fill_each_others_holes():
    game = Game().handshake().handshake(vni=2).seg(C, 104, b" /", vni=1).seg(C, 101, b"GET", vni=2)
    assert game.told() == [("data", 0, b"GET /")]


def test_a_twin_that_is_seen_midstream_is_joined():
    game = (
        Game()
        .handshake()
        .seg(C, 101, b"GET /a")
        .seg(S, 901, b"HTTP/1.", ack=107)
        .seg(C, 107, b"GET /b", ack=908, vni=2)
    )
    assert game.told() == [("data", 0, b"GET /a"), ("data", 1, b"HTTP/1."), ("data", 0, b"GET /b")]
    assert game.table.flows_joined == 1


def test_the_same_endpoints_with_foreign_numbers_stay_apart():
    game = Game().handshake().handshake(2**31, 2**30, vni=2)
    game.seg(C, 101, b"GET 1").seg(C, 2**31 + 1, b"GET 2", vni=2)
    assert game.told() == [("data", 0, b"GET 1"), ("data", 0, b"GET 2")]
    assert (game.table.flows_opened, game.table.flows_joined) == (2, 0)


def test_without_dedup_every_copy_is_kept():
    game = Game(dedup=False).handshake().handshake(vni=2).seg(C, 101, b"GET").seg(C, 101, b"GET", vni=2)
    assert game.told() == [("data", 0, b"GET"), ("data", 0, b"GET")]


def test_a_flow_that_its_consumer_gave_up_is_only_counted():
    game = Game().handshake().seg(C, 101, b"not ours").seg(C, 109, b"more").seg(S, 901, b"x")
    assert game.told() == [("data", 0, b"not ours")]
    assert game.table.ignored_bytes == 5
    game.seg(C, 113, flags=FIN | ACK).seg(S, 902, flags=FIN | ACK)
    assert game.told() == [("closed",)]


def test_idle_flows_end():
    game = Game().handshake().seg(C, 101, b"GET")
    game.now += table.IDLE_NS - SECOND
    game.table.advance(game.now)
    assert game.told() == [("data", 0, b"GET")]
    game.now += 3 * SECOND
    game.table.advance(game.now)
    assert game.told() == [("closed",)]
    assert (game.table.flow_count, game.table.flows_expired) == (0, 1)


def test_half_open_flows_end_sooner():
    game = Game().seg(C, 100, flags=SYN).wait(table.HALF_OPEN_NS / SECOND + 1)
    assert (game.table.flow_count, game.table.flows_expired) == (0, 1)


def test_a_direction_holds_only_so_many_segments():
    game = Game().handshake()
    for number in range(reassembly.MAX_HELD_SEGMENTS + 1):
        game.seg(C, 201 + 2 * number, b"x")
    told = game.told()
    assert told[0] == ("gap", 0, 100)
    (flow,) = flows(game.table)
    assert flow.halves[0].held_segments <= reassembly.MAX_HELD_SEGMENTS


def test_a_direction_holds_only_so_many_bytes():
    game = Game().handshake()
    chunk = bytes(60_000)
    for number in range(reassembly.MAX_HELD_BYTES // len(chunk) + 2):
        game.seg(C, 201 + number * len(chunk), chunk)
        assert game.table.held_bytes <= reassembly.MAX_HELD_BYTES + 2 * len(chunk)
    assert game.told()[0] == ("gap", 0, 100)


def test_all_flows_together_hold_only_so_many_bytes():
    game = Game(max_held_bytes=100_000)
    keys = [C[:8] + bytes([200, number]) + C[10:] for number in range(30)]
    for key in keys:
        game.handshake(key=key).seg(key, 201, bytes(10_000))
        assert game.table.held_bytes <= 100_000
    assert ("gap", 0, 100) in game.told()


def test_there_are_only_so_many_flows_and_the_idlest_goes_first():
    game = Game(max_flows=4)
    keys = [C[:8] + bytes([200, number]) + C[10:] for number in range(6)]
    for number, key in enumerate(keys):
        game.handshake(key=key).seg(key, 101, b"GET %d" % number)
        if number == 3:
            game.seg(keys[0], 106, b" again")  # the first is busy: the second is idler
    assert game.table.flow_count == 4
    assert game.table.flows_evicted == 2
    left = {flow.key for flow in flows(game.table)}
    assert keys[0] in left
    assert keys[1] not in left


def test_the_first_flow_to_go_is_the_idlest_although_every_flow_has_had_segments_since_it_began():
    game = Game(max_flows=8)
    keys = [C[:8] + bytes([200, number]) + C[10:] for number in range(9)]
    for number, key in enumerate(keys[:8]):
        game.handshake(key=key).seg(key, 101, b"GET")
        if number < 7:
            game.seg(key, 104, b" /")  # the newest has not: it is no idler for that
    game.handshake(key=keys[8]).seg(keys[8], 101, b"GET")
    left = {flow.key for flow in flows(game.table)}
    assert keys[0] not in left
    assert keys[7] in left


def test_a_flood_of_syns_does_not_push_open_flows_out():
    game = Game(max_flows=64).handshake().seg(C, 101, b"GET")
    for number in range(1000):
        game.seg(C[:8] + (20_000 + number).to_bytes(2, "big") + C[10:], 7, flags=SYN)
    assert any(flow.key == C for flow in flows(game.table))
    game.seg(C, 104, b" /")
    assert game.told() == [("data", 0, b"GET /")]


def test_data_far_outside_the_window_is_counted():
    game = Game().handshake().seg(C, 101 + 2**30, b"far")
    assert game.told() == []
    assert game.table.out_of_window_bytes == 3


def test_the_end_of_input_ends_every_wait_and_every_flow():
    game = Game().handshake().seg(C, 105, b"two").seg(S, 901, b"HTTP/1.")
    game.seg(C[:8] + b"\1\1" + C[10:], 50, b"GET midstream")
    game.table.finish()
    told = game.told()
    assert ("gap", 0, 4) in told
    assert ("data", 0, b"two") in told
    assert ("data", 0, b"GET midstream") in told
    assert told.count(("closed",)) == 2
    assert (game.table.flow_count, game.table.held_bytes, game.table._flows) == (0, 0, {})


@pytest.mark.parametrize("flags", [0, ACK, FIN, RST, SYN | FIN])
def test_a_segment_to_itself_does_no_harm(flags):
    key = b"\1\1\1\1\1\1\1\1\0\1\0\1"
    game = Game().seg(key, 5, b"GET", flags=flags).seg(key, 5, b"GET", flags=flags).wait(1)
    game.table.finish()
    game.told()
    assert game.table.flow_count == 0
