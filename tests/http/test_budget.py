"""The memory that connections share."""

from vxsniff.http.budget import Budget


def test_what_does_not_fit_is_refused_and_counted():
    budget = Budget(10)
    assert budget.charge(7)
    assert not budget.charge(4)
    assert (budget.used_bytes, budget.refused) == (7, 1)
    budget.release(7)
    assert budget.charge(10)
