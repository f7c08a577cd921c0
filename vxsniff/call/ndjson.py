"""Details -> the line that is shipped: a JSON array of [name, value] pairs of strings, and a line break."""

from __future__ import annotations

import orjson

from vxsniff.call.policy import Detail


def line(details: list[Detail], host: str) -> bytes:
    """One call as NDJSON. `host` names the machine that captured it."""
    details.append(("host", host))
    return orjson.dumps(details, option=orjson.OPT_APPEND_NEWLINE)
