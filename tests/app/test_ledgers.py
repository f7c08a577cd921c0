"""Ledgers of several workers: through text and back, put together, and when one of them died."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.app.test_ledger import taken as taken
from vxsniff.app import ledgers
from vxsniff.app.inherited import Board
from vxsniff.app.ledger import Entry, Equation, Ledger
from vxsniff.app.report import Report

COUNTS = st.integers(0, 2**40)


@st.composite
def closing(draw):
    """A ledger whose sums close, with names of which others have some too."""

    def entries(names, opens):
        return tuple(
            Entry(name, draw(COUNTS), name.upper(), name in opens)
            for name in names
            if name == "a" or draw(st.booleans())
        )

    equations = []
    for name in ("frames", "deliveries"):
        parts = entries(["a", "b", "spooled", "waiting"], ("spooled", "waiting"))
        equations.append(Equation(name, sum(part.value for part in parts), name, parts))
    return Ledger(tuple(equations), entries(["a", "flows", "queue_bytes"], ("queue_bytes",)))


@given(closing())
def test_a_ledger_comes_back_from_text_as_it_was(ledger):
    assert ledgers.from_json(ledgers.to_json(ledger)) == ledger


def test_a_real_ledger_comes_back_from_a_board(taken):
    board = Board.create()
    assert board.read() == ""
    for number in range(3):
        board.write(Report(taken, True, number == 0, 12.5).to_json())
    assert Report.from_json(board.read()) == Report(taken, True, False, 12.5)
    board.clear()
    assert board.read() == ""
    board.write("again")
    assert board.read() == "again"


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", "[[], 3]", '[[["a", 1]], []]', "null"])
def test_text_that_is_no_ledger_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        ledgers.from_json(text)
    with pytest.raises(ValueError, match=r".+"):
        Report.from_json(text)


@given(st.lists(closing(), min_size=1, max_size=4), COUNTS)
def test_the_sum_of_ledgers_closes_and_is_the_sum_of_each_number(some, known):
    merged = ledgers.merged(some, [Entry("flows", known, "known better")])
    assert merged.closes
    for name in ("frames", "deliveries"):
        totals = [equation.total for ledger in some for equation in ledger.equations if equation.name == name]
        assert sum(totals) == next(equation.total for equation in merged.equations if equation.name == name)
    facts = {fact.name: fact.value for fact in merged.facts}
    assert facts["a"] == sum(fact.value for ledger in some for fact in ledger.facts if fact.name == "a")
    assert facts["flows"] == known


@given(closing())
def test_of_a_worker_that_died_nothing_is_open_and_its_sums_still_close(ledger):
    left = ledgers.settled(ledger)
    assert left.closes
    assert not any(part.is_open for equation in left.equations for part in equation.parts)
    assert not any(fact.is_open for fact in left.facts)
    assert [equation.total for equation in left.equations] == [equation.total for equation in ledger.equations]


def test_what_a_dead_worker_had_open_is_lost_but_for_its_spool():
    parts = (Entry("accepted", 5, ""), Entry("spooled", 3, "", is_open=True), Entry("waiting", 2, "", is_open=True))
    left = ledgers.settled(Ledger((Equation("deliveries", 10, "", parts),), ()))
    assert {part.name: part.value for part in left.equations[0].parts} == {
        "accepted": 5,
        "crashed": 2,
        "left_in_spool": 3,
    }


def test_no_ledger_at_all_is_an_empty_one_that_can_be_shown():
    empty = ledgers.merged([], [Entry("workers", 0, "processes")])
    assert empty.closes
    assert empty.as_text() == "ledger"
