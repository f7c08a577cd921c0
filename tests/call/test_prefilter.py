"""What a pattern needs is asked for before it runs: never more than a match has."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vxsniff.call import rules
from vxsniff.call.prefilter import NOTHING, Needs, needs


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("abc", Needs(3, "a")),
        ("a?bc", Needs(2, "b")),
        ("[a-z]+@[a-z]+", Needs(3, "@")),
        (r"\d{3}-\d{2,4}", Needs(6, "-")),
        (r"^\.x$", Needs(2, ".")),
        ("(?:ab)+c", Needs(1, "c")),
        ("(ab|c)d{2}", Needs(2, "d")),
        ("[]x]{4}", Needs(4, "")),
        ("x{,3}y", Needs(1, "y")),
        ("a{b", Needs(3, "a")),
        ("a|b", NOTHING),
        ("(?i)abc", NOTHING),
        ("(?x) a b", NOTHING),
        ("a(?i:b)", NOTHING),
        ("a(?#()b", NOTHING),
        (r"(a)\1", NOTHING),
        (r"\x41", NOTHING),
        (".*", NOTHING),
    ],
)
def test_needs_of_patterns(pattern, expected):
    re.compile(pattern)
    assert needs(pattern) == expected


def test_the_masks_of_the_standard_rules_need_an_at_sign_or_nine_characters():
    masks = [rule.pattern for rule in rules.parse_rules("include standard").rules if rule.verb == "replace"]
    assert {needs(mask.source) for mask in masks} == {Needs(3, "@"), Needs(9, "")}


ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "@",
        ".",
        "[ab]",
        "[^a]",
        "[]a]",
        r"\d",
        r"\.",
        r"\b",
        "^",
        "$",
        "(a|b)",
        "(?:ab)",
        "(?=a)",
        "(a(b)?)",
        "{",
        "-",
    ]
)
QUANTIFIERS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,}", "{,2}", "{0,1}", "*?", "+?", "??", "{}"])
PATTERNS = st.lists(st.tuples(ATOMS, QUANTIFIERS), min_size=1, max_size=6).map(
    lambda parts: "".join(atom + quantifier for atom, quantifier in parts)
)


@given(PATTERNS, st.text("ab@.1-{} ", max_size=12))
@example("a{,2}b", "b")
def test_a_value_that_lacks_what_is_needed_has_no_match(pattern, value):
    try:
        compiled = re.compile(pattern)
    except re.error:
        return
    least, character = needs(pattern)
    if len(value) < least or character not in value:
        assert compiled.search(value) is None
