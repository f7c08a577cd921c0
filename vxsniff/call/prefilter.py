"""What a value must have for a pattern to match anywhere in it: a length at least, and a character that is in it.

Both are cheaper to look for than the pattern. They are read off the pattern's text (Python's `re` syntax) from what
stands outside of groups; where that is not certain they ask for less, or for nothing.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_QUANTIFIER: Final = re.compile(r"(?:[*+?]|\{(\d*)(?:,\d*)?\})[?+]?")
_FLAGS: Final = re.compile(r"\(\?[aiLmsux]*-?[imsx]*[:)]")
_ONE_CHARACTER: Final = "dDwWsSnrtfv"
_NO_CHARACTER: Final = "bBAZ"


class Needs(NamedTuple):
    """At least so many characters, and among them this one ("" for any)."""

    length: int = 0
    character: str = ""


NOTHING: Final = Needs()


def needs(source: str) -> Needs:
    """Of a pattern that `re` takes."""
    length = 0
    character = ""
    place = 0
    while place < len(source):
        char = source[place]
        literal = ""
        width = 1
        if char == "|":
            return NOTHING  # either side will do
        if char == "(":
            end = _group_end(source, place)
            if end < 0:
                return NOTHING
            place, width = end, 0
        elif char == "[":
            place = class_end(source, place)
        elif char == "\\":
            escaped = source[place + 1 : place + 2]
            if escaped in _NO_CHARACTER:
                width = 0
            elif escaped.isalnum() and escaped not in _ONE_CHARACTER:
                return NOTHING
            elif not escaped.isalnum():
                literal = escaped
            place += 2
        else:
            if char in "^$":
                width = 0
            elif char != ".":
                literal = char
            place += 1
        quantifier = _QUANTIFIER.match(source, place)
        if quantifier is not None and quantifier[0] != "{}":
            place = quantifier.end()
            least = int(quantifier[1] or 0) if quantifier[0][0] == "{" else int(quantifier[0][0] == "+")
            width *= least
            literal = literal if least else ""
        length += width
        character = character or literal
    return Needs(length, character)


def class_end(source: str, place: int) -> int:
    """Behind the class that begins here. `]` right behind the opening, or behind its `^`, is a member."""
    place += 1
    if source.startswith("^", place):
        place += 1
    if source.startswith("]", place):
        place += 1
    while place < len(source) and source[place] != "]":
        place += 2 if source[place] == "\\" else 1
    return place + 1


def _group_end(source: str, place: int) -> int:
    """Behind the group that begins here; -1 where flags change what characters mean, and for comments."""
    depth = 0
    while place < len(source):
        char = source[place]
        if char == "[":
            place = class_end(source, place)
            continue
        if char == "\\":
            place += 2
            continue
        if char == "(":
            flags = _FLAGS.match(source, place)
            if source.startswith("(?#", place) or (flags is not None and flags[0] != "(?:"):
                return -1
            depth += 1
        elif char == ")":
            depth -= 1
            if not depth:
                return place + 1
        place += 1
    return -1
