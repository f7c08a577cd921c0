"""Invariant: a rule text is understood or refused with RuleError; what was understood can be applied to any details:
nothing is raised, no detail is added, renamed or moved, and none is left empty.

Also: a value pattern finds what Python's `re` finds in short values, whichever engine serves it, and one that is too
long to judge counts as caught.
"""

from __future__ import annotations

import re

from fuzz.reader import Reader
from vxsniff.call.patterns import RE_MAX_CHARS, Pattern
from vxsniff.call.policy import PASSED, Policy
from vxsniff.call.prefilter import needs
from vxsniff.call.rules import RuleError, parse_rules

NAMES = ("request_method", "request_url", "request_body", "response_body", "request_param:a", "request_header:cookie")
SEPARATORS = "/!%|~"
SCOPES = (
    ".*",
    "request_body",
    "request_.*",
    "response_body|request_url",
    "(request|response)_body",
    "request_param:.*",
)
PATTERNED = ("remove_if", "remove_if_found", "remove_unless", "remove_unless_found", "stop_if", "stop_unless_found")
LINES = ("/.*/ remove", "/request_body/ stop", "sample 5", "include standard", "skip_compression", "", "# comment")
PIECES = (
    *("a", "b", "A", "0", "é", "ß", "@", " ", "-", ".", "*", "+", "?", "{1,3}", "{,2}", "*?", "++", "|", "^", "$"),
    *("[", "]", "[^a]", "[0-9.]", "[]x]", "[\\s,]", "[a-z\\d]", "(", ")", "(a|b)", "(?:", "(?P<n>", "(?i:a)", "(?=a)"),
    *("(?>a)", "(?i)", "\\1", "\\d", "\\w", "\\b", "\\B", "\\s", "\\S", "\\Z", "\\A", "\\u0061", "\\x61", "\\n", "\\."),
    *("\\/", "\\\\1", "\\g<n>", "\\", "/", "!", "%", "~", ", ", "\n", "[[", "--", "&&"),
)
MAX_VALUE_CHARS = 12  # Python's `re` takes exponential time for some patterns


def one_input(data: bytes) -> None:
    reader = Reader(data)
    text = "\n".join(_line(reader) for _ in range(reader.number(5)))
    try:
        rules = parse_rules(text)
    except RuleError as error:
        assert str(error)
        assert "\n" not in str(error)
        return
    for rule in rules.rules:
        assert rule.describe()
    values = [_value(reader) for _ in range(3)]
    for rule in rules.rules:
        if rule.pattern is not None:
            for value in values:
                _agrees(rule.pattern, value)
            if not rule.pattern.is_linear:
                longest = "a" * (RE_MAX_CHARS + 1)
                can_match = needs(rule.pattern.source).character in longest
                assert rule.pattern.found(longest, otherwise=True) == can_match

    details = [(name, reader.choice(values)) for name in NAMES]
    policy = Policy(rules, lambda: 50)
    outcome, left = policy.apply(list(details), set())
    again, left_again = policy.apply(list(details), set())
    assert (outcome, left) == (again, left_again)
    names = [name for name, _ in left]
    assert names == [name for name in NAMES if name in names]
    assert all(value for _, value in left)
    assert bool(left) == (outcome == PASSED)


def _agrees(pattern: Pattern, value: str) -> None:
    python = re.compile(pattern.source)
    assert pattern.matches(value, otherwise=False) == (python.match(value) is not None), (pattern.source, value)
    assert pattern.found(value, otherwise=False) == (python.search(value) is not None), (pattern.source, value)


def _line(reader: Reader) -> str:
    kind = reader.number(4)
    if kind == 0:
        return reader.choice(LINES) + _expression(reader)
    mark = reader.choice(SEPARATORS)
    scope = f"{mark}{reader.choice(SCOPES)}{mark}"
    pattern = f"{mark}{_expression(reader)}{mark}"
    if kind == 1:
        return f"{scope} replace {pattern}, {mark}{_expression(reader)}{mark}"
    if kind == 2:
        return f"{scope} {reader.choice(PATTERNED)} {pattern}"
    return f"copy_session_field {pattern}"


def _expression(reader: Reader) -> str:
    parts = []
    for _ in range(reader.number(10)):
        number = reader.number(len(PIECES) + 2)
        parts.append(PIECES[number] if number < len(PIECES) else reader.take(reader.number(6)).decode("latin-1"))
    return "".join(parts)


def _value(reader: Reader) -> str:
    return reader.take(reader.number(MAX_VALUE_CHARS)).decode("utf-8", "replace")


def _packed(*lines: bytes) -> bytes:
    """An input of these lines."""
    return (
        bytes([len(lines)]) + b"".join(lines) + b"\x06a@b.cd" + b"\x06123456" + b"\x03xaa" + bytes([0, 1, 2, 0, 1, 2])
    )


def _pieces(*pieces: str) -> bytes:
    return bytes([len(pieces), *(PIECES.index(piece) for piece in pieces)])


def seeds() -> list[bytes]:
    found = _pieces("[0-9.]", "{1,3}", "\\d")
    return [
        *(_packed(bytes([0, number]) + _pieces()) for number in range(len(LINES))),
        _packed(b"\1\0\1" + _pieces("(a|b)", "+") + _pieces("\\1", "-")),
        _packed(b"\1\1\0" + _pieces("(?P<n>", "a", ")") + _pieces("\\g<n>")),
        *(_packed(bytes([2, 2, 0, number]) + found) for number in range(len(PATTERNED))),
        _packed(b"\3\0\1" + _pieces("\\w", "*?"), b"\2\0\0\0" + _pieces("(?=a)", "a")),
        _packed(b"\2\0\0\1" + _pieces("[[", "]", "\\s"), b"\2\1\3\1" + _pieces("\\b", "a", "$")),
    ]
