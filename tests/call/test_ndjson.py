"""The line that is shipped."""

import json

from hypothesis import given
from hypothesis import strategies as st

from vxsniff.call import ndjson
from vxsniff.call.policy import Policy
from vxsniff.call.rules import parse_rules

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


RUNS = st.lists(st.tuples(st.lists(st.tuples(TEXT, TEXT.filter(bool)), max_size=3), st.booleans()), max_size=4)


@given(RUNS)
def test_a_line_is_one_json_array_of_pairs_whatever_the_text_and_however_it_is_parted(parts):
    policy = Policy(parse_rules("include debug"), lambda: 0)
    runs = [policy.joined([policy.run(part)]) for part, _ in parts]
    for run, (_, recurs) in zip(runs, parts, strict=True):
        if recurs:
            run.came_again()
    line = ndjson.line(runs, ndjson.line_end("hére"))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == [list(pair) for part, _ in [*parts, ([("host", "hére")], False)] for pair in part]
