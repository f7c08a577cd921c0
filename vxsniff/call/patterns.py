"""The regular expressions of rules: Python's language, RE2's speed where attackers write the text.

Rules are written in the language of Python's `re`, as the published Resurface loggers read them. Patterns that run
over values are compiled with RE2, which is linear in the length of the text: the e-mail pattern of the standard rules
is quadratic under `re`. The two agree on most of the language; where they don't, `translate` rewrites a pattern or
says on which values RE2 may be trusted:

- \\d \\w \\b and case folding know Unicode in `re` and ASCII in RE2: RE2 is asked for ASCII values only;
- `$` also matches before a last line break in `re`: RE2 is asked only for values without one at the end;
- \\s, {,n}, \\Z and \\uXXXX are spelled otherwise.

What RE2 can't do at all (look-around, back references, ...) is left to `re`. Wherever `re` runs over a value, the
value's length is bounded: a longer one counts as matched by a rule that removes, stops or replaces, and as not matched
by an `unless`, so that a bound never lets through what the rule was to catch.

Most values are told from a match by their length, or by a character that is not in them, before any engine runs; and
expressions of the simplest kind need none (`vxsniff.call.runs`).
"""

from __future__ import annotations

import re
from typing import Final

import re2

from vxsniff.call.prefilter import needs
from vxsniff.call.runs import Runs, runs

RE_MAX_CHARS: Final = 4096
"""The longest value that is given to `re`; quadratic patterns take 10 to 20 ms for it."""

# A flag group at the start must stay there when an anchor is put before the pattern.
_LEADING_FLAGS: Final = re.compile(r"\(\?[aimsx]+\)")
_SPACE: Final = r"\t-\r\x1c-\x20"  # what \s means to `re` in ASCII
_SAME_ESCAPES: Final = frozenset("afnrtvAx")
_ASCII_ONLY_ESCAPES: Final = frozenset("dDwWb")  # \B: Python versions differ about the empty text


class PatternError(ValueError):
    """The expression is none, by Python's own rules."""


class Pattern:
    """One compiled expression. `is_linear` tells whether RE2 serves it."""

    __slots__ = (
        "_ascii_only",
        "_character",
        "_character_bytes",
        "_ends_open",
        "_least",
        "_linear",
        "_longest",
        "_python",
        "_runs",
        "is_linear",
        "over_limit",
        "source",
    )

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            self._python = re.compile(source)
        except (re.error, OverflowError, RecursionError) as error:
            raise PatternError(str(error)) from None
        self._linear: re2._Regexp | None = None
        self._longest: re2._Regexp | None = None  # finds the longest match at a place, to know of one that is not empty
        self._ascii_only = False
        self._ends_open = False
        self.over_limit = 0  # how many values were too long for `re`
        translated = translate(source)
        if translated is not None:
            text, self._ascii_only, self._ends_open = translated
            options = re2.Options()
            options.log_errors = False
            try:
                self._linear = re2.compile(text, options)
                if self._python.match("") is not None:
                    options.longest_match = True
                    self._longest = re2.compile(text, options)
            except re2.error:
                self._linear = None
        self.is_linear = self._linear is not None
        self._least, self._character = needs(source)
        self._character_bytes = self._character.encode()
        self._runs: Runs | None = runs(source)

    def _suits_linear(self, value: str) -> bool:
        return not (self._ascii_only and not value.isascii()) and not (self._ends_open and value.endswith("\n"))

    def _can_not_match(self, value: str) -> bool:
        return len(value) < self._least or (self._character != "" and self._character not in value)

    def _is_over_limit(self, value: str) -> bool:
        if len(value) <= RE_MAX_CHARS:
            return False
        self.over_limit += 1
        return True

    def matches(self, value: str, otherwise: bool) -> bool:
        """Whether the value matches from its start; `otherwise` for one that is too long to tell."""
        if self._can_not_match(value):
            return False
        if self._linear is not None and self._suits_linear(value):
            return self._linear.match(value.encode()) is not None
        if self._is_over_limit(value):
            return otherwise
        return self._python.match(value) is not None

    def found(self, value: str, otherwise: bool) -> bool:
        """Whether the value contains a match; `otherwise` for one that is too long to tell."""
        if self._can_not_match(value):
            return False
        if self._runs is not None and value.isascii():
            return self._runs.search(value.encode(), 0)[0] >= 0
        if self._linear is not None and self._suits_linear(value):
            return self._linear.search(value.encode()) is not None
        if self._is_over_limit(value):
            return otherwise
        return self._python.search(value) is not None

    def replace(self, value: str, template: Template) -> str:
        """The value with every match replaced; empty when the value is too long to tell."""
        if self._can_not_match(value):
            return value
        if self._runs is not None and template.constant is not None and value.isascii():
            return self._replace_runs(self._runs, value, template.constant.decode())
        if self._linear is None or not self._suits_linear(value):
            return self._replace_bounded(value, template)
        text = value.encode()  # offsets are bytes: RE2 then need not count characters
        if self._least:
            return self._replace_each(value, text, template)
        parts: list[bytes] = []
        end = 0
        # Like `re`, an empty match right behind another match is replaced as well.
        pos = 0
        size = len(text)
        constant = template.constant
        while pos <= size:
            match = self._linear.search(text, pos)
            if match is None:
                break
            start, stop = match.span()
            parts.append(text[end:start])
            parts.append(constant if constant is not None else template.expand_bytes(match))
            end = stop
            if stop > start:
                pos = stop
                continue
            # An empty match. `re` looks next for one at the same place that is not empty, as `a*?` has in `a`.
            if self._longest is None or self._longest.search(text, stop).span() != (stop, stop):
                return self._replace_bounded(value, template)
            # There is none: copy one character and go on behind it.
            step = _char_bytes(text, stop)
            parts.append(text[stop : stop + step])
            pos = end = stop + max(step, 1)
        if not parts:
            return value
        parts.append(text[end:])
        return b"".join(parts).decode()

    def _replace_each(self, value: str, text: bytes, template: Template) -> str:
        """The same for an expression without empty matches."""
        assert self._linear is not None
        parts: list[bytes] = []
        end = 0
        constant = template.constant
        character = self._character_bytes
        for match in self._linear.finditer(text):
            start, stop = match.span()
            parts.append(text[end:start])
            parts.append(constant if constant is not None else template.expand_bytes(match))
            end = stop
            if character and text.find(character, end) < 0:
                break  # what every match has is not in the rest
        if not parts:
            return value
        parts.append(text[end:])
        return b"".join(parts).decode()

    def _replace_runs(self, runs: Runs, value: str, constant: str) -> str:
        text = value.encode()
        start, stop = runs.search(text, 0)
        if start < 0:
            return value
        parts: list[str] = []
        end = 0
        while start >= 0:
            parts.append(value[end:start])
            parts.append(constant)
            end = stop
            start, stop = runs.search(text, end)
        parts.append(value[end:])
        return "".join(parts)

    def _replace_bounded(self, value: str, template: Template) -> str:
        return "" if self._is_over_limit(value) else self._python.sub(template.expand, value)

    @property
    def groups(self) -> int:
        return self._python.groups

    @property
    def group_names(self) -> dict[str, int]:
        return dict(self._python.groupindex)


class Template:
    """A replacement: text with group references. `\\1` and `\\\\1` both refer: rule files in the field use either."""

    __slots__ = ("_bytes", "_pieces", "constant", "source")

    _REFERENCE: Final = re.compile(r"\\{1,2}(?:([1-9][0-9]?)|g<(\w+)>)|\\([nrt\\])")
    _ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}

    def __init__(self, source: str, pattern: Pattern) -> None:
        self.source = source
        self._pieces: list[str | int] = []
        end = 0
        for match in self._REFERENCE.finditer(source):
            self._pieces.append(source[end : match.start()])
            end = match.end()
            number, name, escape = match.groups()
            if escape is not None:
                self._pieces.append(self._ESCAPES[escape])
                continue
            if number is not None:
                group = int(number)
            elif name.isdigit():
                group = int(name)
            else:
                group = pattern.group_names.get(name, -1)
            if not 0 <= group <= pattern.groups:
                raise PatternError(f"no group {number or name} in the pattern")
            self._pieces.append(group)
        self._pieces.append(source[end:])
        self._bytes = [p.encode() if isinstance(p, str) else p for p in self._pieces]
        self.constant: bytes | None = None
        """The same for every match, when it refers to no group."""
        if all(isinstance(piece, str) for piece in self._pieces):
            self.constant = "".join(piece for piece in self._pieces if isinstance(piece, str)).encode()

    def expand(self, match: re.Match[str]) -> str:
        return "".join(p if isinstance(p, str) else match[p] or "" for p in self._pieces)

    def expand_bytes(self, match: re2._Match) -> bytes:
        return b"".join(p if isinstance(p, bytes) else match.group(p) or b"" for p in self._bytes)


def anchored(source: str) -> str:
    """`^` and `$` added as text where they are missing, as the published loggers do."""
    flags = _LEADING_FLAGS.match(source)
    start = flags.end() if flags else 0
    if not source.startswith("^", start):
        source = source[:start] + "^" + source[start:]
    return source if source.endswith("$") else source + "$"


def translate(source: str) -> tuple[str, bool, bool] | None:
    """A pattern of `re` in RE2's spelling; whether it holds for ASCII values only; whether `$` is in it.

    None where the two may differ in any other way, or where RE2 has no such thing: the caller uses `re`.
    """
    out: list[str] = []
    ascii_only = False
    ends_open = False
    in_class = False
    i = 0
    while i < len(source):
        char = source[i]
        if char == "\\":
            if i + 1 == len(source):
                return None
            escape = source[i + 1]
            i += 2
            if escape == "s":
                out.append(_SPACE if in_class else f"[{_SPACE}]")
                ascii_only = True
            elif escape == "S":
                if in_class:
                    return None
                out.append(f"[^{_SPACE}]")
                ascii_only = True
            elif escape in _ASCII_ONLY_ESCAPES:
                if in_class and escape in "bB":
                    return None  # a backspace to `re`
                out.append("\\" + escape)
                ascii_only = True
            elif escape == "Z":
                out.append(r"\z")
            elif escape in "uU":
                digits = 4 if escape == "u" else 8
                out.append("\\x{" + source[i : i + digits] + "}")
                i += digits
            elif escape in _SAME_ESCAPES or not escape.isalnum():
                if not escape.isascii():
                    out.append(escape)
                else:
                    out.append("\\" + escape)
            else:
                return None
            continue
        if in_class:
            if char == "[":
                if source[i + 1 : i + 2] in (":", ".", "="):
                    return None
                out.append("\\[")
            else:
                in_class = char != "]"
                out.append(char)
            i += 1
            continue
        if char == "[":
            # `]` right behind the opening, or behind its `^`, is a member.
            in_class = True
            out.append(char)
            i += 1
            if source[i : i + 1] == "^":
                out.append("^")
                i += 1
            if source[i : i + 1] == "]":
                out.append("\\]")
                i += 1
            continue
        if char == "(" and source[i + 1 : i + 2] == "?":
            kind = source[i + 2 : i + 3]
            if kind not in (":", "P") or source[i + 2 : i + 4] in ("P=", "P>"):
                flags = re.match(r"\(\?([ims]+)[:)]", source[i:])
                if flags is None:
                    return None
                ascii_only = ascii_only or "i" in flags[1]
                ends_open = ends_open or "m" in flags[1]
        elif char == "{" and re.match(r"\{,\d+\}", source[i:]):
            out.append("{0")
            i += 1
            continue
        elif char == "$":
            ends_open = True
        out.append(char)
        i += 1
    return "".join(out), ascii_only, ends_open


def _char_bytes(text: bytes, pos: int) -> int:
    """How many bytes the UTF-8 character at `pos` has; 0 at the end."""
    if pos >= len(text):
        return 0
    first = text[pos]
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
