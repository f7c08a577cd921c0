"""What a survey makes of packets, whatever the filters of the capture."""

import json
import random

import pytest

from tests.builders import CLIENT, SERVER, Endpoint, answer, get, in_vxlan, ipv4, talk
from vxsniff.doctor import survey
from vxsniff.doctor.survey import Survey
from vxsniff.wire.vxlan import VniFilter


def look(frames, vnis=(), ports=(), vni=123):
    surveyed = Survey(VniFilter(frozenset(vnis)), frozenset(ports))
    for number, frame in enumerate(frames):
        surveyed.vxlan_datagram(in_vxlan(frame, vni), number)
    result = surveyed.result()
    assert json.loads(json.dumps(result)) == result, "it travels as JSON"
    return result


def spoken(request, response=b"", **more):
    return talk((CLIENT, request), (SERVER, response or answer(b"x")), **more)


@pytest.mark.parametrize(
    ("request_bytes", "kind"),
    [
        (get("/"), "http"),
        (b"\x16\x03\x01\x02\x00\x01" + bytes(500), "tls"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "other"),
    ],
)
def test_what_connections_speak_is_told_by_their_first_bytes(request_bytes, kind):
    result = look(spoken(request_bytes, b"\x00\x01"))
    assert result["flows"][kind] == 1
    assert result["flows"]["seen"] == 1
    assert result["ports"] == {"80": 1}


def test_a_connection_whose_beginning_was_not_seen_is_told_by_a_message_start_later():
    frames = spoken(get("/"))[3:]
    result = look([frames[1], *frames])  # its answer comes first
    assert result["flows"]["http"] == 1
    assert result["flows"]["no_syn"] == 1
    assert result["ports"] == {"80": 1}
    assert "no_syn" not in {name for name, count in look(spoken(get("/")))["flows"].items() if count}


@pytest.mark.parametrize(("side", "name"), [(CLIENT, "requests_only"), (SERVER, "responses_only")])
@pytest.mark.parametrize("skipped", [0, 3])
def test_one_direction_alone_is_seen(side, name, skipped):
    source = b"\x0a\x00\x00\x01" if side == CLIENT else b"\x0a\x00\x00\x02"
    frames = [frame for frame in spoken(get("/"))[skipped:] if frame[26:30] == source]
    result = look(frames)
    assert result["flows"][name] == 1
    assert result["ports"] == {"80": 1}
    assert look(spoken(get("/")))["flows"]["both_ways"] == 1


def test_what_the_filters_leave_out_is_told_by_name():
    result = look(spoken(get("/")), vnis=[5])
    assert result["vnis"] == {"123": result["frames"]}
    assert result["in_scope"] == 0
    result = look(spoken(get("/")), ports=[8080])
    assert result["in_scope"] == 0
    assert result["ports"] == {"80": result["frames"]}


def test_packets_cut_by_the_mirror_are_counted_with_what_was_left_of_them():
    frames = spoken(get("/" + "a" * 99), answer(b"x" * 1000))
    result = look([frame[:100] for frame in frames])
    assert result["cut_packets"] == 2  # the request and the response
    assert result["longest_cut_bytes"] == 108


def test_both_ends_mirrored_are_seen():
    surveyed = Survey(VniFilter(), frozenset())
    for frame in spoken(get("/")):
        for vni in (1, 2):
            surveyed.vxlan_datagram(in_vxlan(frame, vni), 0)
    assert surveyed.result()["flows"]["mirrored_twice"] == 1


def test_what_is_no_tcp_is_counted_by_its_reason():
    assert look([b"\x02" * 12 + b"\x08\x00" + ipv4(b"x" * 20, proto=17)])["reasons"] == {"not_tcp": 1}


def test_flows_and_names_are_bounded(monkeypatch):
    monkeypatch.setattr(survey, "MAX_FLOWS", 10)
    monkeypatch.setattr(survey, "MAX_NAMES", 5)
    surveyed = Survey(VniFilter(), frozenset())
    for number in range(30):
        for frame in spoken(
            get("/"), client=Endpoint("10.0.0.1", 1000 + number), server=Endpoint("10.0.0.2", number + 1)
        ):
            surveyed.vxlan_datagram(in_vxlan(frame, number), 0)
    result = surveyed.result()
    assert result["flows"]["seen"] == 10
    assert len(result["vnis"]) == 5
    assert len(result["ports"]) == 5


def test_hostile_datagrams_raise_nothing():
    draw = random.Random(11)
    surveyed = Survey(VniFilter(), frozenset([80]))
    good = [in_vxlan(frame, 7) for frame in spoken(get("/"), answer(b"y" * 5000))]
    for _ in range(20_000):
        data = bytearray(draw.choice(good))
        for _ in range(draw.randrange(4)):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        surveyed.vxlan_datagram(bytes(data[: draw.randrange(len(data) + 1)]), 0)
    assert surveyed.result()["frames"] == 20_000
