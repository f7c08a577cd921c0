"""Rules at work on a call."""

import json

import pytest

from vxsniff.call import ndjson
from vxsniff.call.policy import EMPTIED, MAX_NAME_CHARS, MAX_PLANS, MAX_TREATED, PASSED, SAMPLED_OUT, STOPPED, Policy
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
    fresh = policy("/request_param:secret.*/ remove")
    assert fresh.apply([("request_param:secret" + "x" * MAX_NAME_CHARS, "x")]) == (EMPTIED, [])
    assert not fresh._plans


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


def test_treated_values_are_remembered_to_a_bound_only():
    at_work = policy("/request_param:.*/ replace /secret/, /-/")
    for number in range(3 * MAX_TREATED):
        name = f"request_param:{number % 100}"
        assert at_work.apply([(name, f"secret{number}")])[1] == [(name, f"-{number}")]
        if not number % 500:
            assert sum(len(plan._treated) for plan in at_work._plans.values()) <= MAX_TREATED


def test_a_run_that_recurs_counts_anew_for_each_call():
    at_work = policy("/request_header:.*/ stop_unless /yes/")
    recurring = at_work.run([("request_header:a", "yes")])
    other = at_work.run([("request_header:b", "yes")])
    assert at_work.outcome([recurring]) == PASSED
    assert at_work.outcome([recurring, other]) == STOPPED
    assert at_work.outcome([at_work.joined([recurring, other])]) == STOPPED
    assert at_work.outcome([recurring]) == PASSED


@pytest.mark.parametrize("verb", ["remove", "stop", "replace /secret/, /x/"])
def test_joined_runs_are_judged_as_their_parts(verb):
    at_work = policy(f"/request_header:a/ {verb}")
    parts = [at_work.run([("request_header:b", "1")]), at_work.run([("request_header:a", "secret")])]
    whole = [("request_header:b", "1"), ("request_header:a", "secret")]
    joined = at_work.joined(parts)
    outcome, kept = at_work.apply(whole)
    assert at_work.outcome([joined]) == outcome
    assert outcome == STOPPED or joined.kept == kept
    joined.came_again()
    assert json.loads(ndjson.line([joined], ndjson.line_end("x")))[:-1] == [list(detail) for detail in joined.kept]
