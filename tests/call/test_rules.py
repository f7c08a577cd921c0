"""The rules language: what is read, what is refused, and what the published loggers make of the same text."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from usagelogger.http_rules import HttpRules

from vxsniff.call.policy import PASSED, Policy
from vxsniff.call.rules import DEFAULT, PREDEFINED, RuleError, parse_rules


def ours(rules, details):
    outcome, kept = Policy(parse_rules(rules), lambda: 0).apply([tuple(d) for d in details])
    return [list(d) for d in kept] if outcome == PASSED else None


def theirs(rules, details):
    return HttpRules(rules).apply(copy.deepcopy([list(d) for d in details]))


CALL = [
    ("request_method", "POST"),
    ("request_url", "http://shop.example/buy;v=1"),
    ("response_code", "201"),
    ("request_header:cookie", "session=1"),
    ("request_header:user-agent", "curl/8"),
    ("request_header:authorization", "Bearer abc"),
    ("request_param:card", "4111-1111-1111-1111"),
    ("request_param:mail", "ada@example.org"),
    ("response_header:content-type", "application/json"),
    ("response_header:set-cookie", "a=b"),
    ("request_body", '{"mail":"ada@example.org","phone":"030.123.456.789"}'),
    ("response_body", "<b>ok</b> call 12/34/5678/90"),
    ("now", "1700000000000"),
    ("interval", "12"),
]


@pytest.mark.parametrize("name", ["debug", "standard", "strict", "default"])
def test_the_predefined_sets_do_what_the_published_ones_do(name):
    assert ours(f"include {name}", CALL) == theirs(f"include {name}", CALL)


def test_the_standard_set_masks_mail_and_numbers_and_drops_cookies():
    kept = dict(ours("include standard", CALL))
    assert kept["request_body"] == '{"mail":"x@y.com","phone":"xyxy"}'
    assert kept["response_body"] == "<b>ok</b> call xyxy"
    assert kept["request_param:card"] == "xyxy"
    assert "request_header:cookie" not in kept
    assert "response_header:set-cookie" not in kept


def test_empty_rules_are_the_default_and_cut_the_url():
    """We differ: given no rules at all the published logger reads its own template's `\\\\1` as a backslash and a 1."""
    assert dict(theirs("", CALL))["request_url"] == "\\1"
    assert ours("", CALL) == ours(DEFAULT, CALL) == theirs("include default", CALL)
    assert dict(ours("", CALL))["request_url"] == "http://shop.example/buy"


def test_each_stop_unless_rule_asks_for_a_match_of_its_own():
    """We differ: there two matches of one rule stand for the missing match of another, and a privacy rule is passed by."""
    rules = "/request_param:.*/ stop_unless /.*/\n/request_body/ stop_unless /never/\n"
    assert theirs(rules, CALL) is not None
    assert ours(rules, CALL) is None


def test_several_matches_of_one_stop_unless_rule_stop_the_call_as_there():
    rules = "/request_param:.*/ stop_unless_found /a|4/"
    assert theirs(rules, CALL) is ours(rules, CALL) is None


SCOPES = st.sampled_from(
    [
        "request_body",
        "response_body",
        "request_body|response_body",
        ".*",
        "request_header:.*",
        "request_param:(card|mail)",
    ]
    + [
        "request_header:(?!user-agent).*",
        "response_code",
        "now|interval",
        "request_(url|method)",
        "^request_url$",
        "body",
        "a|.*body",
    ]
)
FINDS = st.sampled_from(
    [
        "ada",
        "[0-9]+",
        "^a",
        "a$",
        "",
        ".*",
        "@",
        "(a)(d)",
        "<b>",
        "b|c",
        "\\d{4}",
        "x",
        "é",
        "\\s",
        "[^a-z]+",
        "(?i:ADA)",
        "\\w+",
        "2+",
    ]
)
TEMPLATES = st.sampled_from(["", "x", "<\\g<0>>", "**", "ü"])
SEPARATORS = st.sampled_from("~!%|/")


def between(separator, text):
    return separator + text.replace(separator, "\\" + separator) + separator


@st.composite
def rule_lines(draw):
    separator = draw(SEPARATORS)
    verb = draw(
        st.sampled_from(
            ["remove", "stop", "replace", "remove_if", "remove_if_found", "remove_unless", "remove_unless_found"]
            + ["stop_if", "stop_if_found", "include standard", "include strict", "allow_http_url", "", "# comment"]
        )
    )
    if verb in ("remove", "stop"):
        return f"{between(separator, draw(SCOPES))} {verb}"
    if verb == "replace":
        template = draw(TEMPLATES)
        return f"{between(separator, draw(SCOPES))} replace {between('!', draw(FINDS.filter(bool)))}, {between('~', template)}"
    if "_" in verb and verb != "allow_http_url":
        return f"{between(separator, draw(SCOPES))} {verb} {between(separator, draw(FINDS.filter(bool)))} # why"
    return verb


NAMES = st.sampled_from([name for name, _ in CALL] + ["custom_field:x", "body", "session_field:a"])
TEXTS = st.one_of(st.text("ad@.0129 -/<b>éx\n", min_size=1, max_size=20), st.sampled_from([value for _, value in CALL]))
DETAILS = st.lists(st.tuples(NAMES, TEXTS), min_size=1, max_size=12)


@settings(max_examples=600)
@given(st.lists(rule_lines(), max_size=5), DETAILS)
def test_generated_rules_do_to_generated_details_what_the_published_logger_does(lines, details):
    rules = "\n".join(["allow_http_url", *lines])  # never empty: see the test above
    assert ours(rules, details) == theirs(rules, details)


@settings(max_examples=300)
@given(SCOPES, FINDS.filter(bool), st.sampled_from(["stop_unless", "stop_unless_found"]), DETAILS)
def test_a_single_stop_unless_rule_does_what_it_does_there(scope, find, verb, details):
    rules = f"{between('~', scope)} {verb} {between('~', find)}"
    assert ours(rules, details) == theirs(rules, details)


BAD = [
    "/a remove",
    "a/ remove",
    "/a/b/ remove",
    "/a/ removed",
    "/a/ replace /b/",
    "/a/ replace /b/, c",
    "/a/ stop_if",
    "/(/ remove",
    "/a/ remove_if /[/",
    "!a/ remove",
    "sample 0",
    "sample 100",
    "sample ten",
    "include",
    "include nothing",
    "copy_session_field",
    "allow_http_url please",
    "remove /a/",
    "|a|b| remove",
    "completely wrong",
]


@pytest.mark.parametrize("line", BAD)
def test_a_rule_that_does_not_parse_is_refused_with_its_line_as_it_is_there(line):
    with pytest.raises(SyntaxError):
        HttpRules(f"allow_http_url\n{line}")
    with pytest.raises(RuleError, match=r"^line 2: "):
        parse_rules(f"allow_http_url\n{line}")


def test_only_one_sample_rule_is_allowed():
    with pytest.raises(RuleError, match="at most one sample"):
        parse_rules("sample 10\nsample 20")
    assert parse_rules("sample 10").sample_percent == 10


@pytest.mark.parametrize(
    "line",
    [
        "  /a/   remove  # with a comment",
        "~a/b~ remove",
        r"/a\/b/ remove",
        "%a% stop_if %b%",
        "|a| replace |b|, ||",
        "!a! replace /b/, ~c~",
    ],
)
def test_spaces_comments_and_separators_are_free(line):
    assert len(parse_rules(line).rules) == len(HttpRules(line)) == 1


def test_words_set_what_they_say():
    rules = parse_rules("allow_http_url\nskip_compression # on loopback\nskip_submission\ncopy_session_field /a|b/")
    assert (rules.allow_http_url, rules.skip_compression, rules.skip_submission) == (True, True, True)
    assert not parse_rules("include strict").allow_http_url
    assert parse_rules("include debug").allow_http_url


def test_rules_tell_what_they_will_do():
    told = [rule.describe() for rule in parse_rules("/a|b/ replace /c(d)/, /\\1/\nsample 5\n").rules]
    assert told == ["names matching ^a|b$: replace c(d) -> '\\\\1'", "sample 5 %"]


def test_rules_that_can_not_run_in_linear_time_are_known():
    slow = parse_rules("include strict\n/request_body/ remove_if_found /(?!a)secret/").slow_rules
    assert [rule.line for rule in slow] == [2]


def test_the_predefined_sets_are_all_linear():
    for name in PREDEFINED:
        assert parse_rules(f"include {name}").slow_rules == []
