"""Expressions that need no engine: what they match is what Python's `re` matches."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vxsniff.call.rules import PREDEFINED
from vxsniff.call.runs import _WINDOW_CHARS, NOWHERE, runs

EMAIL = r"[a-zA-Z0-9.!#$%&’*+\/=?^_`{|}~-]+@[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)"
NUMBERS = r"[0-9\.\-\/]{9,}"
EXPRESSIONS = (
    *(
        EMAIL,
        NUMBERS,
        "[0-9]+",
        "[0-9]{3,}",
        "a+",
        "a{2,}b",
        "[ab]+c",
        "[ab]{2,}[cd]{2}",
        "[ab]+(?:c[ab]+)",
        "[ab]+c{2}d+",
    ),
    *(
        r"[^@]+@[^@]{3,}",
        "[a]{4,}",
        "[a-z]+=[^=;]+;",
        r"[\d]{2,}-[\d]{2,}",
        "[ab]{3,}c",
        "[ab]{5,}(?:[c-]{2,}a)",
        "[ab]+cc",
        "[ab]+[c]",
    ),
)
TEXT = st.text(st.sampled_from("aaabbbccd@-.019 \n{"), max_size=60)


def spans(source, text):
    found = runs(source)
    data = text.encode()
    matches = []
    start, end = found.search(data, 0)
    while start >= 0:
        matches.append((start, end))
        start, end = found.search(data, end)
    return matches


@pytest.mark.parametrize("source", EXPRESSIONS)
@given(text=TEXT)
@settings(max_examples=200)
@example(text="a@b.c a@b a@b.c@d.e @@ a@ .@.")
@example(text="123-45-6789 1234 2026-11-21T09:30:00Z")
def test_matches_are_those_of_python(source, text):
    assert spans(source, text) == [match.span() for match in re.finditer(source, text)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("[ab]", "[bc]", "c", "[cd]", "[^ab]", r"\.", "@", "a")),
            st.sampled_from(("", "+", "{2}", "{3,}")),
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
    TEXT,
)
@settings(max_examples=500)
def test_whatever_is_taken_matches_as_python_does(parts, is_grouped, text):
    last = "".join(parts[-1])
    source = "".join(map("".join, parts[:-1])) + (f"(?:{last})" if is_grouped else last)
    if runs(source) is not None:
        assert spans(source, text) == [match.span() for match in re.finditer(source, text)]


@pytest.mark.parametrize("run", [8, 9, 10, 40, 5000])
@pytest.mark.parametrize("offset", range(-20, 21))
def test_a_run_is_found_across_the_windows_that_are_looked_at(run, offset):
    text = "x" * (_WINDOW_CHARS + offset) + "1" * run + "x" * 30 + "2" * 9
    for source in (NUMBERS, "[0-9]{5000,}", "[0-9]{2,}", "[0-9]+"):
        assert spans(source, text) == [match.span() for match in re.finditer(source, text)]


@pytest.mark.parametrize(
    "source",
    [
        *(
            "",
            "a",
            "a*",
            "a?b+",
            "a+?",
            "a++",
            "a+|b",
            "(a+)",
            "(?i)a+",
            "^a+",
            "a+$",
            "a+.",
            r"\d+",
            r"a+\b",
            "(?:a+)+",
            "(?:a+b){2}",
        ),
        *(
            "a+a",
            "[ab]+[bc]",
            "[ab]+(?:b)",
            "a{2,3}",
            "a{,3}",
            "a{0,}b",
            "[ab]",
            "ä+",
            "[a-z]+é",
            "(?:a+",
            "a+)",
            r"a+\x41",
            "a+b{٣}c",
            # Each start would walk over the starts behind it.
            "[a-z]+=[^;]+;",
            "[a-z]+[0-9][^;]+;",
            "[ab]{3,}[cd]+[a]+",
            "[a-z]+@[0-9]{65}",
        ),
    ],
)
def test_anything_else_is_left_to_an_engine(source):
    assert runs(source) is None


def test_the_published_rules_for_bodies_need_no_engine():
    assert EMAIL in PREDEFINED["standard"]
    assert NUMBERS in PREDEFINED["standard"]
    assert runs(EMAIL).search(b"mail to some.one@shop.example, or", 0) == (8, 29)
    assert runs(NUMBERS).search(b"none here: 123 456", 0) == NOWHERE


def test_many_matches_and_near_misses_cost_no_more_than_the_text_is_long():
    """A million characters; anything quadratic would take hours."""
    for text in ("1" * 9 + " ", "1" * 8 + " ", "a@b ", "@", "a@b.c "):
        data = text * (1_000_000 // len(text))
        for source in (EMAIL, NUMBERS):
            assert len(spans(source, data)) in (0, len(data) // len(text))
