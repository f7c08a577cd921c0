"""Sequence arithmetic at and around the wrap."""

from hypothesis import given
from hypothesis import strategies as st

from vxsniff.flow.seq import MODULUS, add, diff

NUMBERS = st.one_of(st.integers(0, MODULUS - 1), st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**31 + 1, MODULUS - 1]))
STEPS = st.integers(-(2**31), 2**31 - 1)


@given(NUMBERS, STEPS)
def test_diff_undoes_add(start, step):
    assert diff(add(start, step), start) == step


@given(NUMBERS, NUMBERS)
def test_add_undoes_diff(a, b):
    assert add(b, diff(a, b)) == a
    assert -(2**31) <= diff(a, b) < 2**31


@given(NUMBERS, NUMBERS)
def test_diff_is_antisymmetric_but_for_the_opposite_point(a, b):
    assert diff(a, b) == -diff(b, a) or diff(a, b) == -(2**31)


def test_the_wrap():
    assert diff(0, MODULUS - 1) == 1
    assert diff(MODULUS - 1, 0) == -1
    assert add(MODULUS - 1, 1) == 0
