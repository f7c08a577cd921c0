"""Which build this is: the hot rooms compiled by mypyc, or interpreted."""

from __future__ import annotations

from vxsniff.wire import decode


def build() -> str:
    return "interpreted" if (decode.__file__ or "").endswith(".py") else "compiled"
