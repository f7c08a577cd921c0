"""The rooms together: switches, and errors of our own that cost one call only."""

import pytest

from tests.builders import CLIENT, SERVER, Endpoint, Play, answer, get, talk
from vxsniff.call.rules import parse_rules

TURNS = ((CLIENT, get("/a")), (SERVER, answer(b"x")), (CLIENT, get("/b")), (SERVER, answer(b"y")))


def test_a_disabled_pipeline_counts_and_ships_nothing():
    play = Play(disabled=True)
    play.frames(talk(*TURNS))
    assert play.finish() == []
    assert (play.pipeline.counters.calls, play.pipeline.counters.disabled) == (2, 2)


def test_the_rule_skip_submission_does_the_same():
    play = Play(rules="include debug\nskip_submission")
    play.frames(talk(*TURNS))
    assert play.finish() == []
    assert play.pipeline.counters.disabled == 2


def test_the_sample_rule_keeps_its_share():
    for share, kept in ((50, 0), (51, 2)):
        play = Play(rules=f"include debug\nsample {share}")  # the test's draw is always 50
        play.frames(talk(*TURNS))
        assert len(play.finish()) == kept


@pytest.mark.interpreted
def test_an_error_of_our_own_costs_one_call_and_is_told(monkeypatch):
    play = Play()
    told = []
    play.pipeline._on_error = told.append
    build = play.pipeline.builder.build

    def fail_once(exchange, flow):
        if exchange.request.target == b"/a":
            raise RuntimeError("a defect")
        return build(exchange, flow)

    monkeypatch.setattr(play.pipeline.builder, "build", fail_once)
    play.frames(talk(*TURNS))
    assert [call["response_body"] for call in play.finish()] == ["y"]
    assert play.pipeline.counters.failed == 1
    assert len(told) == 1


@pytest.mark.interpreted
def test_an_error_in_a_connection_leaves_the_others_alone(monkeypatch):
    play = Play()
    told = []
    play.pipeline._on_error = told.append
    segment = play.pipeline.table.segment

    def fail_on(one):
        if b"/a" in one.payload:
            raise RuntimeError("a defect")
        segment(one)

    monkeypatch.setattr(play.pipeline.table, "segment", fail_on)
    play.frames(talk(*TURNS))
    play.frames(talk(*TURNS[2:], client=Endpoint("10.0.0.9", 1)))
    assert "y" in [call["response_body"] for call in play.finish()]
    assert play.pipeline.segments_failed == len(told) == 1


def test_headers_that_recur_are_judged_anew_when_the_rules_change():
    """What was noted of a client's headers under the rules before must not be shipped under the new ones."""
    play = Play(rules="include debug")
    turns = ((CLIENT, get("/a", "Authorization: secret")), (SERVER, answer(b"x", "X-Token: secret")))
    seen = []
    for rules in ("include debug", "include strict", "include debug"):
        play.pipeline.use(parse_rules(rules), "", 1_048_576, False)
        for _ in range(3):
            play.lines.clear()
            play.frames(talk(*turns, client=Endpoint("10.0.0.1", 1000 + play.now_ns // 1000 % 50_000)))
            play.wait(1)
            (call,) = play.calls
            seen.append("secret" in str(call))
    assert seen == [True] * 3 + [False] * 3 + [True] * 3
