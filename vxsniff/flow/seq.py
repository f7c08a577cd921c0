"""TCP sequence number arithmetic (RFC 9293 section 3.4): numbers live on a circle of 2**32."""

from __future__ import annotations

from typing import Final

MODULUS: Final = 2**32
_HALF: Final = 2**31


def diff(a: int, b: int) -> int:
    """How far `a` lies ahead of `b` on the circle: from -2**31 to 2**31 - 1."""
    return (a - b + _HALF) % MODULUS - _HALF


def add(a: int, n: int) -> int:
    """The sequence number `n` bytes behind `a`."""
    return (a + n) % MODULUS
