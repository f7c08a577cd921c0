"""Frames of every shape that the design names, each to its segment or its reason."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import ethernet, ipv4, ipv6, tcp, udp
from vxsniff.demo.frames import in_geneve, in_vxlan
from vxsniff.wire import decode, reasons
from vxsniff.wire.decode import Decoder
from vxsniff.wire.segment import NO_VNI
from vxsniff.wire.vxlan import VniFilter, parse_vni_list

PAYLOAD = b"GET / HTTP/1.1\r\n\r\n"
PLAIN = ethernet(ipv4(tcp(payload=PAYLOAD)))
KEY4 = bytes([10, 0, 0, 1, 10, 0, 0, 2]) + struct.pack("!HH", 40000, 80)


def decoded(datagram, **options):
    decoder = Decoder(VniFilter(), **options)
    segment = decoder.vxlan_datagram(datagram, 5)
    assert decoder.frames == decoder.segments + sum(decoder.reasons) == 1
    return segment


def refused(datagram, reason, decoder=None):
    decoder = decoder or Decoder(VniFilter())
    assert decoder.vxlan_datagram(datagram, 5) is None
    named = {reasons.NAMES[i]: n for i, n in enumerate(decoder.reasons) if n}
    assert named == {reasons.NAMES[reason]: 1}
    assert decoder.frames == decoder.segments + sum(decoder.reasons)


def test_a_plain_ipv4_segment_is_read_whole():
    segment = decoded(in_vxlan(ethernet(ipv4(tcp(seq=7, ack=9, flags=0x18, payload=PAYLOAD))), 123))
    assert (segment.vni, segment.key, segment.seq, segment.ack, segment.flags) == (123, KEY4, 7, 9, 0x18)
    assert (segment.payload, segment.missing_bytes, segment.ts_ns) == (PAYLOAD, 0, 5)


def test_a_plain_ipv6_segment_is_read_whole():
    segment = decoded(in_vxlan(ethernet(ipv6(tcp(payload=PAYLOAD)), 0x86DD), 2**24 - 1))
    assert segment.vni == 2**24 - 1
    assert len(segment.key) == 36
    assert segment.payload == PAYLOAD


@pytest.mark.parametrize(
    "tags",
    [((0x8100, 5),), ((0x88A8, 5), (0x8100, 6)), ((0x9100, 1), (0x8100, 2), (0x8100, 3))],
    ids=["one tag", "802.1ad", "three tags"],
)
@pytest.mark.parametrize(("build", "kind"), [(ipv4, 0x0800), (ipv6, 0x86DD)], ids=["IPv4", "IPv6"])
def test_tags_are_skipped(tags, build, kind):
    assert decoded(in_vxlan(ethernet(build(tcp(payload=PAYLOAD)), kind, tags), 1)).payload == PAYLOAD


def test_ipv4_and_tcp_options_are_skipped():
    frame = ethernet(ipv4(tcp(payload=PAYLOAD, options=b"\1" * 12), options=b"\1" * 8))
    segment = decoded(in_vxlan(frame, 1))
    assert (segment.payload, segment.key) == (PAYLOAD, KEY4)


def test_ipv6_extension_headers_are_skipped():
    chain = (
        bytes([43, 0]) + bytes(6) + bytes([60, 1]) + bytes(14) + bytes([51, 0]) + bytes(6) + bytes([6, 1]) + bytes(10)
    )
    segment = decoded(in_vxlan(ethernet(ipv6(chain + tcp(payload=PAYLOAD), following=0), 0x86DD), 1))
    assert segment.payload == PAYLOAD


def test_an_ethernet_trailer_is_no_data():
    assert decoded(in_vxlan(PLAIN + b"trailer", 1)).payload == PAYLOAD
    assert decoded(in_vxlan(ethernet(ipv6(tcp(payload=PAYLOAD)), 0x86DD) + b"trailer", 1)).payload == PAYLOAD


@pytest.mark.parametrize(("build", "kind"), [(ipv4, 0x0800), (ipv6, 0x86DD)], ids=["IPv4", "IPv6"])
def test_a_frame_that_the_mirror_cut_short_says_how_much_is_missing(build, kind):
    frame = ethernet(build(tcp(payload=PAYLOAD)), kind)
    for cut in range(1, len(PAYLOAD) + 1):
        segment = decoded(in_vxlan(frame[:-cut], 1))
        assert (segment.payload, segment.missing_bytes) == (PAYLOAD[:-cut], cut)


def test_a_frame_cut_inside_a_header_is_counted_as_short():
    for size in range(len(PLAIN) - len(PAYLOAD)):
        refused(in_vxlan(PLAIN[:size], 1), reasons.FRAME_SHORT)


def test_a_super_segment_without_a_length_runs_to_the_end_of_the_frame():
    assert decoded(in_vxlan(ethernet(ipv4(tcp(payload=PAYLOAD), total=0)), 1)).payload == PAYLOAD
    assert decoded(in_vxlan(ethernet(ipv6(tcp(payload=PAYLOAD), length=0), 0x86DD), 1)).payload == PAYLOAD


def test_reserved_bits_of_vxlan_are_ignored_but_the_i_flag_must_be_set():
    datagram = in_vxlan(PLAIN, 7)
    assert decoded(b"\xf8\xff\xff\xff" + datagram[4:7] + b"\xff" + datagram[8:]).vni == 7
    refused(b"\x00" + datagram[1:], reasons.TUNNEL_INVALID)
    refused(b"\xf7" + datagram[1:], reasons.TUNNEL_INVALID)
    refused(datagram[:7], reasons.TUNNEL_SHORT)


def test_vxlan_gpe_carries_ip_without_ethernet():
    inner = ipv4(tcp(payload=PAYLOAD))
    assert decoded(b"\x0c\0\0\x01\0\0\x09\0" + inner).vni == 9
    assert decoded(b"\x0c\0\0\x02\0\0\x09\0" + ipv6(tcp(payload=PAYLOAD))).payload == PAYLOAD
    assert decoded(b"\x0c\0\0\x03\0\0\x09\0" + PLAIN).payload == PAYLOAD
    refused(b"\x0c\0\0\x04\0\0\x09\0" + PLAIN, reasons.NOT_IP)


@pytest.mark.parametrize(
    ("listed", "passing", "refused_vnis"),
    [("123,456", (123, 456), (1, 0)), ("-5", (1, 123), (5,)), ("1 2 -2", (1,), (2, 3)), ("", (0, 7), ())],
)
def test_vnis_are_kept_and_excluded(listed, passing, refused_vnis):
    for vni in passing:
        assert Decoder(parse_vni_list(listed)).vxlan_datagram(in_vxlan(PLAIN, vni), 0).vni == vni
    for vni in refused_vnis:
        refused(in_vxlan(PLAIN, vni), reasons.VNI_FILTERED, Decoder(parse_vni_list(listed)))


def test_application_ports_are_looked_for_on_both_sides():
    back = ethernet(ipv4(tcp(sport=80, dport=40000, payload=PAYLOAD)))
    ports = frozenset({80})
    assert decoded(in_vxlan(PLAIN, 1), ports=ports).payload == PAYLOAD
    assert decoded(in_vxlan(back, 1), ports=ports).payload == PAYLOAD
    refused(in_vxlan(PLAIN, 1), reasons.PORT_FILTERED, Decoder(VniFilter(), frozenset({81})))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (ethernet(b"\0" * 28, 0x0806), reasons.NOT_IP),
        (ethernet(ipv4(b"\0" * 40, proto=17)), reasons.NOT_TCP),
        (ethernet(ipv4(b"\0" * 40, proto=1)), reasons.NOT_TCP),
        (ethernet(b"\x35" + ipv4(tcp())[1:]), reasons.IP_INVALID),
        (ethernet(b"\x44" + ipv4(tcp())[1:]), reasons.IP_INVALID),
        (ethernet(ipv4(tcp(), total=19)), reasons.IP_INVALID),
        (ethernet(ipv4(tcp()[:12] + b"\x40" + tcp()[13:])), reasons.TCP_INVALID),
        (ethernet(ipv4(tcp()[:12] + b"\xf0" + tcp()[13:])), reasons.TCP_INVALID),
        (ethernet(ipv4(tcp()), tags=((0x8100, 1),) * 12), reasons.NOT_IP),
    ],
)
def test_what_is_no_tcp_segment_has_its_reason(frame, reason):
    refused(in_vxlan(frame, 1), reason)


def fragments(build_one, body, size=16):
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return [build_one(piece, i * size, i + 1 < len(pieces)) for i, piece in enumerate(pieces)]


def fragment4(piece, offset, more):
    return ethernet(ipv4(piece, fragment=(0x2000 if more else 0) | offset // 8))


def fragment6(piece, offset, more):
    return ethernet(ipv6(struct.pack("!BBHI", 6, 0, offset | more, 99) + piece, following=44), 0x86DD)


@pytest.mark.parametrize("build", [fragment4, fragment6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("backwards", [False, True])
def test_fragments_are_put_together_in_any_order(build, backwards):
    decoder = Decoder(VniFilter())
    frames = fragments(build, tcp(payload=PAYLOAD * 5))
    frames = frames[::-1] if backwards else frames
    for frame in frames[:-1]:
        assert decoder.vxlan_datagram(in_vxlan(frame, 1), 0) is None
    assert decoder.vxlan_datagram(in_vxlan(frames[-1], 1), 0).payload == PAYLOAD * 5
    assert decoder.reasons[reasons.FRAGMENT] == len(frames) - 1
    assert decoder.frames == decoder.segments + sum(decoder.reasons)
    assert (len(decoder.fragments), decoder.fragments.held_bytes) == (0, 0)


def test_fragments_of_other_vnis_are_not_mixed():
    decoder = Decoder(VniFilter())
    first, second, third = fragments(fragment4, tcp(payload=PAYLOAD))
    for vni, frame in ((1, first), (2, second), (1, third)):
        assert decoder.vxlan_datagram(in_vxlan(frame, vni), 0) is None
    assert decoder.vxlan_datagram(in_vxlan(second, 1), 0).payload == PAYLOAD


def test_geneve_options_are_skipped_and_vxlan_inside_is_unwrapped():
    decoder = Decoder(parse_vni_list("123"))
    options = bytes.fromhex(
        "0108 01 02 0000000000000001 0108 02 02 0000000000000002 0108 03 01 00000003".replace(" ", "")
    )
    outer = ipv4(udp(in_vxlan(PLAIN, 123)), proto=17)
    segment = decoder.geneve_datagram(in_geneve(outer, 0, options, 0x0800), 3)
    assert (segment.vni, segment.payload) == (123, PAYLOAD)
    assert decoder.geneve_datagram(in_geneve(ipv4(udp(in_vxlan(PLAIN, 9)), proto=17), 0, b"", 0x0800), 3) is None
    assert decoder.reasons[reasons.VNI_FILTERED] == 1


def test_geneve_around_a_frame_is_judged_by_its_own_vni():
    decoder = Decoder(parse_vni_list("77"))
    assert decoder.geneve_datagram(in_geneve(PLAIN, 77), 3).vni == 77
    assert decoder.geneve_datagram(in_geneve(PLAIN, 78), 3) is None
    assert decoder.reasons[reasons.VNI_FILTERED] == 1


def test_damaged_geneve_has_its_reason():
    decoder = Decoder(VniFilter())
    for datagram in (b"\x40" + in_geneve(PLAIN, 1)[1:], b"\x3f" + in_geneve(b"", 1)[1:], b"\0" * 7):
        assert decoder.geneve_datagram(datagram, 0) is None
    assert decoder.geneve_datagram(in_geneve(PLAIN, 1, b"", 0x88CC), 0) is None
    assert decoder.reasons[reasons.TUNNEL_INVALID] == 2
    assert decoder.reasons[reasons.TUNNEL_SHORT] == 1
    assert decoder.reasons[reasons.NOT_IP] == 1


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (1, PLAIN),
        (101, PLAIN[14:]),
        (228, PLAIN[14:]),
        (0, b"\2\0\0\0" + PLAIN[14:]),
        (113, b"\0" * 14 + PLAIN[12:]),
        (276, b"\x08\0" + b"\0" * 18 + PLAIN[14:]),
    ],
    ids=["Ethernet", "raw", "IPv4", "loopback", "cooked", "cooked 2"],
)
def test_plain_frames_are_taken_by_their_link_type(link_type, frame):
    segment = Decoder(VniFilter()).frame(frame, link_type, 1)
    assert (segment.vni, segment.payload) == (NO_VNI, PAYLOAD)


def test_an_unknown_link_type_is_counted():
    decoder = Decoder(VniFilter())
    assert decoder.frame(PLAIN, 147, 0) is None
    assert decoder.reasons[reasons.LINK_UNKNOWN] == 1


def test_plain_frames_pass_only_when_no_vni_is_asked_for_by_name():
    assert Decoder(parse_vni_list("-5")).frame(PLAIN, 1, 0) is not None
    decoder = Decoder(parse_vni_list("5"))
    assert decoder.frame(PLAIN, 1, 0) is None
    assert decoder.reasons[reasons.VNI_FILTERED] == 1


@pytest.mark.parametrize(
    ("tunnel", "port"),
    [("vxlan", 4789), ("vxlan", 8472), ("vxlan", 31337), ("geneve", 6081), ("geneve", 8472), ("geneve", 31337)],
)
def test_tunnels_in_plain_frames_are_unwrapped_whatever_the_port(port, tunnel):
    inner = in_vxlan(PLAIN, 55) if tunnel == "vxlan" else in_geneve(PLAIN, 55)
    segment = Decoder(VniFilter()).frame(ethernet(ipv4(udp(inner, dport=port), proto=17)), 1, 0)
    assert (segment.vni, segment.payload) == (55, PAYLOAD)


def test_other_udp_is_not_taken_for_a_tunnel():
    for payload in (b"\0" * 100, b"\x08" + b"\0" * 99, bytes(range(100)), b"\x12\x34\x81\x80\0\1\0\1" + b"\0" * 60):
        frame = ethernet(ipv4(udp(payload, dport=53), proto=17))
        decoder = Decoder(VniFilter())
        assert decoder.frame(frame, 1, 0) is None
        assert decoder.reasons[reasons.NOT_TCP] == 1


def test_tunnels_nest_to_a_bound_only():
    datagram = in_vxlan(PLAIN, 3)
    for depth in range(2, 9):
        datagram = in_vxlan(ethernet(ipv4(udp(datagram), proto=17)), depth)
        decoder = Decoder(VniFilter())
        segment = decoder.vxlan_datagram(datagram, 0)
        assert (segment is not None) == (depth <= decode.MAX_TUNNELS)


FRAMES = (
    PLAIN,
    ethernet(ipv4(tcp(payload=PAYLOAD, options=b"\1\1\1\0"))) + b"trailer",
    ethernet(ipv4(udp(in_vxlan(PLAIN, 7)), proto=17)),
    ethernet(ipv4(udp(in_vxlan(ethernet(ipv4(tcp(payload=PAYLOAD)), tags=[(0x8100, 5)]), 7)), proto=17)),
    ethernet(ipv4(udp(in_vxlan(ethernet(ipv6(tcp(payload=PAYLOAD)), 0x86DD), 9)), proto=17)),
    ethernet(ipv4(udp(in_geneve(PLAIN, 7), dport=6081), proto=17)),
    ethernet(ipv4(udp(in_geneve(PLAIN, 7)[:30], dport=6081), proto=17)),
)


@pytest.mark.parametrize("vnis", ["", "7", "-7"])
@given(
    frame=st.sampled_from(FRAMES),
    changes=st.lists(st.tuples(st.integers(0, 130), st.integers(0, 255)), max_size=3),
    size=st.one_of(st.just(None), st.integers(0, 160)),
)
@settings(max_examples=400)
def test_the_short_way_of_the_common_case_comes_to_what_the_walk_does(vnis, frame, changes, size):
    data = bytearray(frame)
    for place, value in changes:
        if place < len(data):
            data[place] = value
    frame = bytes(data[:size])

    def told(by_walk=False, around=b""):
        decoder = Decoder(parse_vni_list(vnis), frozenset((80,)))
        if by_walk:
            decoder.frames += 1
            segment = decoder._ethernet(frame, 0, len(frame), NO_VNI, 0, 5)
        else:
            start, end = len(around), len(around) + len(frame)
            segment = decoder.frame_in(around + frame + around, start, end, decode.LINK_ETHERNET, 5)
        assert decoder.frames == decoder.segments + sum(decoder.reasons)
        names = ("vni", "key", "seq", "ack", "flags", "payload", "missing_bytes", "ts_ns")
        return segment and [getattr(segment, name) for name in names], decoder.reasons

    assert told() == told(by_walk=True)
    # What stands around a frame in what was read of a file is no matter.
    assert told() == told(around=b"\xff" * 70) == told(around=bytes(70)) == told(around=PLAIN)
