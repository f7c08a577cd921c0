"""RE2 serves where it agrees with `re`; elsewhere `re` does, over a bounded length."""

import re
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vxsniff.call.patterns import RE_MAX_CHARS, Pattern, PatternError, Template, anchored

# Pieces of the language that rules are written in; joined at random they are mostly valid.
PIECES = st.sampled_from(
    [
        "a",
        "b",
        "0",
        "-",
        ".",
        "@",
        "é",
        "ß",
        "K",
        " ",
        "\\d",
        "\\w",
        "\\s",
        "\\S",
        "\\D",
        "\\W",
        "\\b",
        "\\.",
        "\\/",
        "\\-",
    ]
    + [
        "[abc]",
        "[^ab]",
        "[0-9.]",
        "[]x]",
        "[\\w-]",
        "[\\s,]",
        "[a-z\\d]",
        "[éß]",
        "(a|b)",
        "(?:ab|c)",
        "(?P<n>a)",
        "(?i:a)",
    ]
    + [
        "*",
        "+",
        "?",
        "{2}",
        "{1,3}",
        "{,2}",
        "*?",
        "+?",
        "|",
        "^",
        "$",
        "\\A",
        "\\Z",
        "\\n",
        "\\t",
        "\\x41",
        "\\u00e9",
        "(?=a)",
        "(?!b)",
    ]
)
PATTERNS = st.lists(PIECES, min_size=1, max_size=6).map("".join)
VALUES = st.text(st.sampled_from("abcK0129-.@ é\u212aßÄ\n\t\x0b\x1c١_/"), max_size=12)


@settings(max_examples=1500)
@given(PATTERNS, VALUES)
def test_matches_and_finds_what_re_does(source, value):
    try:
        python = re.compile(source)
    except re.error:
        with pytest.raises(PatternError):
            Pattern(source)
        return
    pattern = Pattern(source)
    assert pattern.matches(value, False) == (python.match(value) is not None)
    assert pattern.found(value, False) == (python.search(value) is not None)


@settings(max_examples=1500)
@given(PATTERNS, VALUES, st.sampled_from(["", "x", "<\\1>", "\\\\1!", "a\\g<0>b", "é"]))
def test_replaces_what_re_does(source, value, template):
    try:
        pattern = Pattern(source)
        replacement = Template(template, pattern)
    except PatternError:
        return
    # What re makes of an alternation of empty and longer matches depends on its backtracking; RE2 takes the same
    # leftmost-first choice, so the two agree there as well.
    assume("\\\\1" not in template or pattern.groups)
    assert pattern.replace(value, replacement) == re.sub(source, template.replace("\\\\1", "\\1"), value)


@pytest.mark.parametrize("source", ["a*?", ".*", "a*", "|a", "a??", "(?:)", "x*|b", "\\b", "^", "$", "a*?b*"])
@pytest.mark.parametrize("value", ["", "a", "aab", "baa", "xx yy", "ä", "aä"])
def test_empty_matches_are_replaced_as_re_does(source, value):
    pattern = Pattern(source)
    assert pattern.replace(value, Template("-", pattern)) == re.sub(source, "-", value)


@given(
    st.sampled_from(["a@", "[ab]+@[ab]+", "@(a|b)", "-{2}", "é.", "[0-9.]{3,}", "a(?:b|@)", r"\.\d"]),
    st.lists(st.sampled_from(["a", "b", "@", "-", "é", ".1", "12", " ", "a@b", "--", "ß"]), max_size=12).map("".join),
    st.sampled_from(["x", "", "<\\g<0>>", "@", "é"]),
)
def test_every_match_is_replaced_and_what_lies_between_stays(source, value, template):
    pattern = Pattern(source)
    assert pattern.replace(value, Template(template, pattern)) == re.sub(source, template, value)


def test_a_long_value_is_replaced_as_a_whole():
    pattern = Pattern(".*")
    assert pattern.replace("a" * 100_000, Template("x", pattern)) == "xx"  # as re: the text, and the nothing behind it


def test_what_re2_lacks_is_left_to_re():
    for source in ("(?!a)b", "(?<=a)b", "(a)\\1", "(?P=n)" if False else "(?P<n>a)(?P=n)", "a*+", "(?>a)"):
        pattern = Pattern(source)
        assert not pattern.is_linear, source


@pytest.mark.parametrize("source", ["(", "[", "a{2,1}", "*", "(?P<n", "\\"])
def test_what_is_no_expression_is_refused(source):
    with pytest.raises(PatternError):
        Pattern(source)


def test_a_value_too_long_for_re_counts_as_the_caller_says():
    pattern = Pattern("(?!x)secret")
    long = "y" * RE_MAX_CHARS + "secret"
    assert pattern.found(long, otherwise=True)
    assert not pattern.found(long, otherwise=False)
    assert pattern.matches(long, otherwise=True)
    assert pattern.replace(long, Template("", pattern)) == ""
    assert pattern.over_limit == 4
    assert pattern.found("secret", otherwise=False)


def test_a_long_value_that_is_not_ascii_is_bounded_where_re2_and_re_differ():
    pattern = Pattern(r"\d{9}")
    assert pattern.is_linear
    assert pattern.found("1" * 100_000, otherwise=False)  # ASCII: RE2, any length
    assert pattern.found("é" * 100_000, otherwise=True)  # \d knows other digits in re: the bound holds
    assert not Pattern("[0-9]{9}").found("é" * 100_000, otherwise=True)  # no such difference here


def test_quadratic_patterns_run_in_linear_time():
    email = Pattern(r"[a-zA-Z0-9.!#$%&’*+\/=?^_`{|}~-]+@[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)")
    template = Template("x@y.com", email)
    # No timed assertion: re would need a quarter of an hour for this, and the test's time limit is two minutes.
    started = time.perf_counter()
    assert email.replace("a" * 1_000_000, template) == "a" * 1_000_000
    assert time.perf_counter() - started < 60


@pytest.mark.parametrize(
    ("source", "whole"),
    [("a", "^a$"), ("^a", "^a$"), ("a$", "^a$"), ("a|b", "^a|b$"), ("(?i)a", "(?i)^a$"), ("(?i)^a", "(?i)^a$")],
)
def test_anchors_are_added_as_text(source, whole):
    assert anchored(source) == whole


def test_templates_refer_to_groups_by_number_and_name():
    pattern = Pattern("(?P<user>[a-z]+)@([a-z]+)")
    for template in (r"\1 at \2", r"\\1 at \\2", r"\g<user> at \g<2>"):
        assert pattern.replace("ada@host", Template(template, pattern)) == "ada at host"
    for template in (r"\3", r"\g<no>"):
        with pytest.raises(PatternError):
            Template(template, pattern)


@pytest.mark.parametrize("text", ["", "a", " ", "a b"])
def test_where_no_word_begins_or_ends_is_left_to_python(text):
    # RE2 finds \\B in the empty text, and Python before 3.14 does not. Found by fuzzing.
    pattern = Pattern(r"^\B\B$")
    assert not pattern.is_linear
    assert pattern.found(text, otherwise=False) == (re.search(r"^\B\B$", text) is not None)
