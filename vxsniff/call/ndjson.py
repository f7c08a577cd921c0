"""What the rules left of a call -> the line that is shipped: a JSON array of [name, value] pairs of strings."""

from __future__ import annotations

import orjson

from vxsniff.call.policy import Run


def line_end(host: str) -> bytes:
    """How each line ends: the name of the machine that captured the call, and a line break."""
    return orjson.dumps(("host", host)) + b"]\n"


def line(runs: list[Run], end: bytes) -> bytes:
    """One call as NDJSON, of runs that a policy has treated."""
    parts = [run.json for run in runs if run.kept]
    parts.append(end)
    parts[0] = b"[" + parts[0]  # the shorter copy: not of the whole
    return b",".join(parts)
