"""Details -> one readable line a call, for a terminal. Made from what the rules left, like the shipped line.

12:30:01.123  vni 123  POST    201     12 ms  shop.example/api/cart  245 B > 1.2 kB
"""

from __future__ import annotations

import re
from typing import Final

from vxsniff.call.policy import Detail
from vxsniff.call.record import Record
from vxsniff.wire.segment import NO_VNI

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_COLOURS: Final = {"2": "32", "3": "36", "4": "33", "5": "31"}
MAX_URL_CHARS: Final = 200


def line(details: list[Detail], record: Record, stamp: str, colour: bool) -> bytes:
    """One call as a line of text that begins with `stamp`; what the rules removed shows as `-`."""
    values: dict[str, str] = {}
    for name, value in details:
        values.setdefault(name, value)
    vni = "" if record.vni == NO_VNI else f"vni {record.vni}"
    # Text from the wire must not steer the terminal.
    method = _CONTROL.sub("?", values.get("request_method", "-"))[:16]
    status = values.get("response_code", "-")
    url = _CONTROL.sub("?", values.get("request_url", "-").removeprefix("http://"))
    if len(url) > MAX_URL_CHARS:
        url = url[: MAX_URL_CHARS - 1] + "…"
    if colour:
        status = f"\x1b[{_COLOURS.get(status[:1], '0')}m{status:>3}\x1b[0m"
    sizes = f"{_size(record.request_bytes)} > {_size(record.response_bytes)}"
    capture = _CONTROL.sub("?", values.get("custom_field:capture", ""))
    text = f"{stamp}  {vni:<12}  {method:<7} {status:>3} {record.duration_ms:>6} ms  {url}  {sizes}"
    return f"{text}  [{capture}]\n".encode() if capture else f"{text}\n".encode()


def _size(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    if size < 1_000_000:
        return f"{size / 1000:.1f} kB"
    return f"{size / 1_000_000:.1f} MB"
