"""What the rules left of a call -> the line that is shipped: a JSON array of [name, value] pairs of strings."""

from __future__ import annotations

from typing import Final

import orjson

from vxsniff.call.policy import Run

_NEWLINE: Final[int] = orjson.OPT_APPEND_NEWLINE


def line_end(host: str) -> orjson.Fragment:
    """The last pair of each line: the name of the machine that captured the call."""
    return orjson.Fragment(orjson.dumps(("host", host)))


def line(runs: list[Run], end: orjson.Fragment) -> bytes:
    """One call as NDJSON, of runs that a policy has treated."""
    members: list[object] = []
    for run in runs:
        if run.json is None:
            members += run.kept
        elif run.kept:
            members.append(run.json)  # several members at once: a fragment is written as it is
    members.append(end)
    return orjson.dumps(members, option=_NEWLINE)
