"""The line that is shipped."""

import json

from hypothesis import given
from hypothesis import strategies as st

from vxsniff.call import ndjson

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_a_line_is_one_json_array_of_pairs_whatever_the_text(details):
    line = ndjson.line(list(details), "here")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == [list(pair) for pair in [*details, ("host", "here")]]
