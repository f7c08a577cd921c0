"""Expressions that say which characters follow one another, and at most how often at least: matched without an engine.

`[0-9]{9,}` and `[a-z.]+@[a-z]+(?:\\.[a-z]+)` are of that kind, and so are the published rules for bodies. A part is one
character or a class, once or at least so often; what may follow a part that repeats is not in it, so that there is one
way only to match: each part takes all it can get. Such a match can be found by looking at some characters of a text:
one of every few that the first part has at least, or the one that must come behind it. For ASCII text only.
"""

from __future__ import annotations

import itertools
import re
from typing import Final, NamedTuple

from vxsniff.call.prefilter import class_end

_QUANTIFIER: Final = re.compile(r"\+|\{([0-9]{1,4})(,?)\}")
_SPECIAL: Final = frozenset(".^$*+?{}[]\\|()")
_WINDOW_CHARS: Final = 4096
_MAX_EXACT: Final = 64
_MARKS: Final = 3
"""So many marks in a row few runs have that are too short, and looking at a third of a text costs little."""

NOWHERE: Final = (-1, -1)


class _Part(NamedTuple):
    """`members` has a 1 for each character that belongs to it, in order of their codes up to 255. `literal` is the only
    one, once.
    """

    members: bytes
    least: int
    repeats: bool
    literal: bytes


class Runs:
    """Finds what an expression of that kind matches, as Python's `re` would."""

    __slots__ = ("_follows", "_in_a_row", "_least", "_members", "_rest", "_step", "_window_chars")

    def __init__(self, parts: list[_Part]) -> None:
        self._members = parts[0].members
        self._least = parts[0].least
        self._rest = [(part.members, part.least, part.repeats) for part in parts[1:]]
        self._follows = parts[1].literal if len(parts) > 1 else b""
        self._step = max(1, self._least // _MARKS)
        self._in_a_row = b"\1" * (self._least // self._step)
        self._window_chars = max(_WINDOW_CHARS, 4 * self._least)

    def search(self, text: bytes, pos: int) -> tuple[int, int]:
        """Where the first match at `pos` or behind it begins and ends; NOWHERE when there is none."""
        return self._by_what_follows(text, pos) if self._follows else self._by_length(text, pos)

    def _by_what_follows(self, text: bytes, pos: int) -> tuple[int, int]:
        members = self._members
        behind = text.find(self._follows, pos)
        while behind >= 0:
            start = behind
            while start > pos and members[text[start - 1]]:
                start -= 1
            if behind - start >= self._least:
                end = self._rest_at(text, behind)
                if end >= 0:
                    return start, end
            behind = text.find(self._follows, behind + 1)
        return NOWHERE

    def _by_length(self, text: bytes, pos: int) -> tuple[int, int]:
        """Of every so many characters one is looked at: of a run that is long enough, some in a row are members."""
        members = self._members
        least = self._least
        size = len(text)
        known = window = pos  # no run that begins before `known` is of interest
        while window + least <= size:
            marks = text[window : window + self._window_chars : self._step].translate(members)
            mark = marks.find(self._in_a_row)
            while mark >= 0:
                at = window + mark * self._step
                if at >= known:
                    start = at
                    while start > known and members[text[start - 1]]:
                        start -= 1
                    known = at + 1
                    while known < size and members[text[known]]:
                        known += 1
                    if known - start >= least:
                        end = self._rest_at(text, known)
                        if end >= 0:
                            return start, end
                mark = marks.find(self._in_a_row, mark + 1)
            # A run over the window's end may have had too few marks in it: the next window has them all.
            window = max(known, window + self._window_chars - least - self._step)
        return NOWHERE

    def _rest_at(self, text: bytes, pos: int) -> int:
        """Where the parts behind the first one end when they begin at `pos`; -1 when they don't."""
        size = len(text)
        for members, least, repeats in self._rest:
            start = pos
            limit = size if repeats else min(size, pos + least)
            while pos < limit and members[text[pos]]:
                pos += 1
            if pos - start < least:
                return -1
        return pos


def runs(source: str) -> Runs | None:
    """The expression, if it is of that kind, and if looking for it takes time in proportion to the text: what follows
    its start must not run over the place where another match may start, or each start would walk the rest of the text.
    """
    parts = _parts(source)
    if not parts or not parts[0].repeats:
        return None
    starts = parts[1].members if len(parts) > 1 and parts[1].literal else parts[0].members
    for part in parts[1:]:
        if part.least > _MAX_EXACT or (part.repeats and _share(part.members, starts)):
            return None
    for part, following in itertools.pairwise(parts):
        if part.repeats and _share(part.members, following.members):
            return None
    return Runs(parts)


def _share(members: bytes, others: bytes) -> bool:
    return any(a and b for a, b in zip(members, others, strict=True))


def _parts(source: str) -> list[_Part] | None:
    parts: list[_Part] = []
    depth = 0
    place = 0
    while place < len(source):
        if source.startswith("(?:", place):
            depth += 1
            place += 3
            continue
        if source[place] == ")" and depth:
            depth -= 1
            place += 1
            if source[place : place + 1] in ("*", "+", "?", "{"):
                return None
            continue
        start = place
        place = _part_end(source, place)
        if place < 0 or place > len(source):
            return None
        element = re.compile(source[start:place])
        members = bytes(code < 128 and element.fullmatch(chr(code)) is not None for code in range(256))
        literal = bytes((members.index(1),)) if source[start] != "[" else b""
        least, repeats = 1, False
        quantifier = _QUANTIFIER.match(source, place)
        if quantifier is not None:
            place = quantifier.end()
            least = int(quantifier[1] or 1)
            repeats = quantifier[0] == "+" or quantifier[2] == ","
        if not least or source[place : place + 1] in ("*", "+", "?", "{"):
            return None
        parts.append(_Part(members, least, repeats, b"" if repeats or least > 1 else literal))
    return parts if not depth else None


def _part_end(source: str, place: int) -> int:
    """Behind the class or character that begins here; -1 for anything else."""
    char = source[place]
    if char == "[":
        return class_end(source, place)
    if char == "\\":
        escaped = source[place + 1 : place + 2]
        return place + 2 if escaped.isascii() and escaped and not escaped.isalnum() else -1
    return place + 1 if char.isascii() and char not in _SPECIAL else -1
