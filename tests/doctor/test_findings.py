"""What is observed, and what a person is told to do about it."""

import pytest

from vxsniff.doctor.findings import NOTE, OK, PROBLEM, diagnose

GOOD = {
    "frames": 1000,
    "segments": 1000,
    "in_scope": 1000,
    "vnis": {"123": 1000},
    "ports": {"80": 10},
    "flows": {"seen": 10, "http": 10, "both_ways": 10},
    "calls": 10,
    "shipped": 10,
    "port": 4789,
    "wanted_vnis": [123],
    "collector": {"where": "http://c/message", "status": 204, "error": "", "ms": 2.0, "skew_s": 0.4},
}


def without(*names, **more):
    return {**{name: value for name, value in GOOD.items() if name not in names}, **more}


def collector(**more):
    return without(collector={**GOOD["collector"], **more})


def test_when_all_is_well_nothing_is_left_to_do():
    found = diagnose(GOOD)
    assert {finding.level for finding in found} == {OK}
    assert not any(finding.step for finding in found)
    assert [finding.text for finding in found] == [
        "1,000 packets came, 1,000 of them TCP; VNIs 123 (1,000)",
        "10 connections speak: HTTP/1 10, TLS 0, HTTP/2 0, other 0; servers' ports: 80 (10)",
        "10 calls, 10 to be shipped",
        "http://c/message answers 204 in 2 ms",
    ]


CASES = {
    "no packet": ({"port": 4789}, PROBLEM, "no packet came", "let UDP 4789 in"),
    "no packet on a device": (
        {"devices": ["lo"], "app_ports": [80]},
        PROBLEM,
        "no packet came",
        "was there traffic on port 80 on lo meanwhile? `vxsniff devices`",
    ),
    "no packet on any device": ({"devices": []}, PROBLEM, "no packet came", "traffic on any device meanwhile"),
    "calls were refused": (without(refused=18), PROBLEM, "18 calls were refused for good", "vxsniff spool retry"),
    "no packet in a file": ({"is_file": True}, PROBLEM, "no packet came", "the right file"),
    "the kernel dropped": (without(kernel_dropped=7), PROBLEM, "kernel dropped 7 datagrams", "net.core.rmem_max"),
    "no VXLAN": ({"frames": 10, "reasons": {"tunnel_invalid": 9}}, PROBLEM, "9 of 10 datagrams are no VXLAN", "GENEVE"),
    "no TCP": ({"frames": 9, "reasons": {"not_tcp": 9}}, PROBLEM, "no TCP among them (not_tcp 9)", "protocol 6"),
    "another VNI": (
        without("in_scope", wanted_vnis=[5], unwanted_vnis=[6]),
        PROBLEM,
        "none of them is in a VNI that is captured: 5 but 6",
        "set --vnis to those of your mirror sessions: 123",
    ),
    "an excluded VNI": (
        without("in_scope", wanted_vnis=[], unwanted_vnis=[123]),
        PROBLEM,
        "is captured: all but 123",
        "--vnis",
    ),
    "a silent VNI": (without(wanted_vnis=[123, 9]), NOTE, "nothing came from VNI 9", "is that session on"),
    "another port": (
        without("in_scope", app_ports=[8080]),
        PROBLEM,
        "none of it is on an application port: 8080; seen are 80",
        "--app-ports",
    ),
    "packets cut off": (without(cut_packets=3, longest_cut_bytes=128), PROBLEM, "3 packets were cut off", "8947"),
    "requests only": (
        without(flows={"seen": 10, "http": 10, "requests_only": 9, "both_ways": 1}),
        PROBLEM,
        "one direction is missing: of 9 of 10 connections only what clients send came",
        "lacks its egress rule",
    ),
    "responses only": (
        without(flows={"seen": 10, "http": 10, "responses_only": 10}),
        PROBLEM,
        "only what servers send came",
        "lacks its ingress rule",
    ),
    "no beginning": (
        without(flows={"seen": 10, "http": 10, "no_syn": 9}),
        NOTE,
        "the beginning of 9 of 10 connections was not seen",
        "open already",
    ),
    "mirrored twice": (
        without(flows={"seen": 10, "http": 10, "mirrored_twice": 4}),
        NOTE,
        "4 connections come from two mirror sessions",
        "mirror the servers only",
    ),
    "all TLS": (
        without(flows={"seen": 10, "tls": 10}, calls=0, shipped=0),
        PROBLEM,
        "10 of 10 connections are TLS, which is not decrypted",
        "behind the terminator",
    ),
    "mostly TLS": (without(flows={"seen": 10, "tls": 8, "http": 2}), NOTE, "8 of 10 connections are TLS", "terminator"),
    "HTTP/2": (
        without(flows={"seen": 10, "http2": 10}, calls=0, shipped=0),
        PROBLEM,
        "10 of 10 connections are HTTP/2 without TLS",
        "HTTP/1.1",
    ),
    "no HTTP": (
        without(flows={"seen": 10, "other": 10}, calls=0),
        PROBLEM,
        "HTTP/1 0, TLS 0, HTTP/2 0, other 10",
        "mirror where it is spoken",
    ),
    "no data": (without(flows={"seen": 10, "quiet": 10}, calls=0), NOTE, "no connection carried any data", "longer"),
    "no whole call": (without(calls=0, shipped=0), NOTE, "no call was complete yet", "watch longer"),
    "all stopped": (
        without(calls=10, shipped=0, stopped=8, sampled_out=2),
        PROBLEM,
        "10 calls, and none is shipped: stopped by a rule 8, sampled out 2",
        "vxsniff rules check",
    ),
    "switched off": (without(shipped=0, disabled=10), PROBLEM, "none is shipped: not delivered because", "DISABLE"),
    "all emptied": (without(shipped=0, emptied=10), PROBLEM, "left empty by the rules 10", "rules check"),
    "collector down": (collector(status=0, error="refused"), PROBLEM, "can't be reached: refused", "is it up"),
    "collector 401": (collector(status=401), PROBLEM, "answers 401", "the token or user"),
    "collector 302": (collector(status=302), PROBLEM, "answers 302, a redirect", "where it leads"),
    "collector 404": (collector(status=404), PROBLEM, "answers 404", "the path"),
    "collector 400": (collector(status=400), NOTE, "answers 400 to an empty batch", "vxsniff status"),
    "collector 503": (collector(status=503), PROBLEM, "answers 503", "its own log"),
    "clock ahead": (collector(skew_s=61), PROBLEM, "clock is 61 s ahead of the collector's", "NTP"),
    "clock behind": (collector(skew_s=-7200), PROBLEM, "clock is 7200 s behind", "timedatectl"),
    "calls wait": (without(waiting=1100), NOTE, "1,100 calls wait for the collector", "vxsniff status"),
}


@pytest.mark.parametrize(("seen", "level", "text", "step"), CASES.values(), ids=CASES)
def test_each_finding_says_what_to_do_next(seen, level, text, step):
    (finding,) = [finding for finding in diagnose(seen) if text in finding.text]
    assert finding.level == level
    assert step in finding.step


@pytest.mark.parametrize("case", CASES)
def test_whatever_is_not_well_comes_with_a_step(case):
    for finding in diagnose(CASES[case][0]):
        assert finding.step or finding.level == OK, finding


def test_some_of_it_on_other_ports_or_in_other_vnis_is_no_finding():
    assert {finding.level for finding in diagnose(without(in_scope=3, vnis={"123": 3, "124": 997}))} == {OK}


def test_without_a_collector_nothing_is_said_of_one():
    assert not any("answers" in finding.text for finding in diagnose(without("collector")))
