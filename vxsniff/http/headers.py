"""The header fields of a message in order, and what they say of its body's framing.

Fields recur: a client sends the same ones with each request. So one `Header` stands for a line wherever it comes again,
one `Headers` for a whole block of lines (`vxsniff.http.head` keeps both), and `note` is where who reads a message keeps
what it once made of them.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

NO_ROLE: Final = 0
CONTENT_LENGTH: Final = 1
TRANSFER_ENCODING: Final = 2
UPGRADE: Final = 3
EXPECT: Final = 4
CONTENT_TYPE: Final = 5
CONTENT_ENCODING: Final = 6
HOST: Final = 7
USER_AGENT: Final = 8
COOKIE: Final = 9

MAX_LENGTH_DIGITS: Final = 19
"""Of a Content-Length, without zeros before it: longer ones no body has, and Python refuses to read the longest."""

_ROLES: Final = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"content-type": CONTENT_TYPE,
    b"content-encoding": CONTENT_ENCODING,
    b"host": HOST,
    b"user-agent": USER_AGENT,
    b"cookie": COOKIE,
}


@mypyc_attr(acyclic=True)
class Header:
    """One field: its name as it was sent, its value without white space around it. `role` tells the names apart that
    anybody here asks for.
    """

    __slots__ = ("name", "note", "role", "value")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.value = value.strip(b" \t")
        self.role: int = _ROLES.get(name.lower(), NO_ROLE)
        self.note: object = None


@mypyc_attr(acyclic=True)
class Headers:
    """All fields of a head. `content_length` is -1 where there is none.

    `is_contested` when more than one field speaks of the body's length (RFC 9112 section 6.3): then whether the head is
    one depends on all of them. Not `is_valid` with a Content-Length that is no number. `block` is the
    lines that they were read from, the empty one at their end with them, if they are kept for when these come again.
    """

    __slots__ = (
        "block",
        "chunked",
        "content_length",
        "expects_continue",
        "fields",
        "is_contested",
        "is_valid",
        "note",
        "transfer_coded",
        "upgrade",
    )

    def __init__(self, fields: list[Header]) -> None:
        self.fields = fields
        self.note: object = None
        self.block = b""
        self.content_length = -1
        self.transfer_coded = False
        self.chunked = False
        self.upgrade = False
        self.expects_continue = False
        self.is_contested = False
        self.is_valid = True
        for field in fields:
            role = field.role
            if role == NO_ROLE or role > EXPECT:
                continue
            if role == CONTENT_LENGTH:
                self.is_contested = self.is_contested or self.content_length >= 0 or self.transfer_coded
                digits = field.value.lstrip(b"0") or field.value[:1]
                if digits.isdigit() and len(digits) <= MAX_LENGTH_DIGITS:
                    self.content_length = int(digits)
                else:
                    self.is_valid = False
            elif role == TRANSFER_ENCODING:
                self.is_contested = self.is_contested or self.content_length >= 0 or self.transfer_coded
                self.transfer_coded = True
                self.chunked = field.value.lower().rpartition(b",")[2].strip() == b"chunked"
            elif role == UPGRADE:
                self.upgrade = True
            else:
                self.expects_continue = field.value.lower() == b"100-continue"

    def first(self, role: int) -> bytes:
        """The value of the first field of that role; empty when there is none."""
        for field in self.fields:
            if field.role == role:
                return field.value
        return b""


NO_HEADERS: Final = Headers([])
