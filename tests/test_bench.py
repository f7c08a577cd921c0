"""That the benchmark measures what it says: all calls, at every stage. No figure is asserted."""

import pytest

from bench import offline
from tests.builders import CLIENT, EPOCH_NS, MS, SERVER, Endpoint, answer, get, in_vxlan, talk

CALLS = 40


@pytest.fixture
def datagrams():
    made = []
    for number in range(CALLS):
        frames = talk(
            (CLIENT, get(f"/{number}")), (SERVER, answer(b"x" * 500)), client=Endpoint("10.0.0.1", 2000 + number)
        )
        made += [(in_vxlan(frame, 7), EPOCH_NS + len(made) * MS) for frame in frames]
    return made


@pytest.mark.parametrize("rules", offline.RULES)
def test_every_stage_sees_every_call(datagrams, rules, monkeypatch):
    monkeypatch.setattr(offline, "REPEATS", 1)
    figures = offline.stages(datagrams, rules)
    assert set(figures) == {*offline.STAGES, "calls", "packets"}
    assert figures["calls"] == CALLS
    assert figures["packets"] == len(datagrams)
    assert offline.whole(datagrams, rules) > 0


def test_batches_are_packed_when_they_are_full(monkeypatch):
    monkeypatch.setattr(offline, "BATCH_BYTES", 100)
    packer = offline.Packer()
    for _ in range(10):
        packer(b"x" * 30 + b"\n")
    assert packer.packed_bytes > 0
