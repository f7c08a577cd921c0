"""What several workers saw is what one would have seen."""

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import CLIENT, SERVER, Endpoint, answer, get, in_vxlan, talk
from vxsniff.doctor.observation import merged
from vxsniff.doctor.survey import Survey
from vxsniff.wire.vxlan import VniFilter


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_connections_shared_out_among_workers_are_seen_as_by_one(shares):
    one = Survey(VniFilter([7, 8]), frozenset([80]))
    workers = [Survey(VniFilter([7, 8]), frozenset([80])) for _ in range(3)]
    for number, share in enumerate(shares):
        client, server = Endpoint("10.0.0.1", 2000 + number), Endpoint("10.0.0.2", (80, 8080)[number % 2])
        for frame in talk((CLIENT, get("/")), (SERVER, answer(b"x" * number)), client=client, server=server):
            for survey in (one, workers[share]):
                survey.vxlan_datagram(in_vxlan(frame, 7 + number % 3), 0)
    nothing_left_out = {name: value for name, value in one.result().items() if value}
    together = merged([worker.result() for worker in workers])
    for name, value in nothing_left_out.items():
        if isinstance(value, dict):
            assert {k: v for k, v in together[name].items() if v} == {k: v for k, v in value.items() if v}, name
        else:
            assert together[name] == value, name


def test_what_holds_for_all_is_not_added_up_and_of_lengths_the_longest_holds():
    one = {
        "port": 4789,
        "wanted_vnis": [7],
        "where": "a",
        "collector": {"status": 204},
        "longest_cut_bytes": 96,
        "calls": 5,
    }
    other = {**one, "where": "b", "longest_cut_bytes": 200, "calls": 5}
    assert merged([one, other]) == {**one, "longest_cut_bytes": 200, "calls": 10}
