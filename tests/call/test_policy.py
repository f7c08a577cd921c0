"""Rules at work on a call."""

import pytest

from vxsniff.call.policy import EMPTIED, MAX_PLANS, PASSED, SAMPLED_OUT, STOPPED, Policy
from vxsniff.call.rules import parse_rules


def policy(rules, draw=0):
    return Policy(parse_rules("allow_http_url\n" + rules), lambda: draw)


def test_outcomes_tell_why_a_call_is_not_shipped():
    details = [("request_body", "secret")]
    assert policy("").apply(details) == (PASSED, details)
    assert policy("/request_body/ stop").apply(details) == (STOPPED, [])
    assert policy("/request_body/ stop_if_found /cre/").apply(details) == (STOPPED, [])
    assert policy("/request_body/ stop_unless /x/").apply(details) == (STOPPED, [])
    assert policy("sample 10", draw=10).apply(details) == (SAMPLED_OUT, [])
    assert policy("sample 10", draw=9).apply(details) == (PASSED, details)
    assert policy("/request_body/ remove").apply(details) == (EMPTIED, [])


@pytest.mark.parametrize(
    "rule",
    [
        "/response_body/ replace /[0-9]+/, /#/",
        "/response_body/ remove_if_found /secret/",
        "/response_body/ remove_unless_found /public/",
    ],
)
def test_a_partial_value_that_a_rule_would_look_at_is_left_out(rule):
    """The rest of it was left out at a limit: a match may begin before the cut and end behind it."""
    details = [("response_code", "200"), ("response_body", "public 123")]
    assert policy(rule).apply(details, {"response_body"})[1] == [("response_code", "200")]


def test_a_partial_value_that_no_rule_looks_at_is_shipped():
    details = [("response_code", "200"), ("response_body", "beginning")]
    assert policy("/request_body/ replace /a/, /b/").apply(details, {"response_body"}) == (PASSED, details)


def test_names_are_remembered_to_a_bound_only():
    at_work = policy("/request_param:secret.*/ remove")
    for number in range(MAX_PLANS + 50):
        at_work.apply([(f"request_param:p{number}", "x")])
    assert len(at_work._plans) == MAX_PLANS
    assert at_work.apply([("request_param:secret-new", "x")]) == (EMPTIED, [])


def test_session_fields_are_chosen_by_name():
    at_work = policy("copy_session_field /user.*|cart/")
    assert at_work.has_session_rules
    assert at_work.copies_session_field("user_id")
    assert at_work.copies_session_field("cart")
    assert not at_work.copies_session_field("token")
    assert not policy("").has_session_rules


def test_a_megabyte_of_one_letter_passes_the_standard_rules():
    body = "a" * 1_000_000
    assert Policy(parse_rules("include standard"), lambda: 0).apply([("request_body", body)])[1] == [
        ("request_body", body)
    ]
