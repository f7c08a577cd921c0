"""The rules language: text -> RuleSet. One rule a line; what it means is in README.md, "Rules".

The language, the predefined sets and the order in which rules work are those of the published Resurface loggers
(PyPI usagelogger). A line that can't be read raises RuleError with the line and the reason: a logger must never run
with fewer rules than were asked for.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from vxsniff.call.patterns import Pattern, PatternError, Template, anchored

SEPARATORS: Final = "~!%|/"

# The patterns are the published ones.
PREDEFINED: Final = {
    "debug": "allow_http_url\ncopy_session_field /.*/\n",
    "standard": (
        "/request_header:cookie|response_header:set-cookie/ remove\n"
        r"/(request|response)_body|request_param/ replace "
        r"/[a-zA-Z0-9.!#$%&’*+\/=?^_`{|}~-]+@[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)/, /x@y.com/"
        "\n"
        r"/request_body|request_param|response_body/ replace /[0-9\.\-\/]{9,}/, /xyxy/"
        "\n"
    ),
    "strict": (
        r"/request_url/ replace /([^\?;]+).*/, !\1!"
        "\n"
        r"/request_body|response_body|request_param:.*|request_header:(?!user-agent).*|"
        r"response_header:(?!(content-length)|(content-type)).*/ remove"
        "\n"
    ),
}
DEFAULT: Final = "include default"
_DEFAULT_SET: Final = "strict"

VERBS_WITH_PATTERN: Final = (
    "remove_if",
    "remove_if_found",
    "remove_unless",
    "remove_unless_found",
    "stop_if",
    "stop_if_found",
    "stop_unless",
    "stop_unless_found",
)

_COMMENT: Final = re.compile(r"\s*(#.*)?")
_INCLUDE: Final = re.compile(r"\s*include\s+(\w+)\s*(#.*)?")
_WORD: Final = re.compile(r"\s*(allow_http_url|skip_compression|skip_submission)\s*(#.*)?")
_EXPRESSION: Final = r"([~!%|/].+[~!%|/])"
_SESSION: Final = re.compile(rf"\s*copy_session_field\s+{_EXPRESSION}\s*(#.*)?")
_SAMPLE: Final = re.compile(r"\s*sample\s+(\d+)\s*(#.*)?")
_SCOPED: Final = re.compile(rf"\s*{_EXPRESSION}\s*(remove|stop)\s*(#.*)?")
_PATTERNED: Final = re.compile(
    rf"\s*{_EXPRESSION}\s*({'|'.join(sorted(VERBS_WITH_PATTERN, key=len, reverse=True))})\s+{_EXPRESSION}\s*(#.*)?"
)
_REPLACE: Final = re.compile(rf"\s*{_EXPRESSION}\s*replace\s+{_EXPRESSION},\s+([~!%|/].*[~!%|/])\s*(#.*)?")


class RuleError(ValueError):
    """A rule that can't be read: the message names its line, its text and the reason."""


class Rule(NamedTuple):
    """One rule as it was understood. `line` counts from 1 in the text that held it, 0 for predefined ones."""

    verb: str
    scope: Pattern | None
    pattern: Pattern | None
    template: Template | None
    percent: int
    line: int
    text: str

    def describe(self) -> str:
        """The rule with its expressions as they will be matched."""
        parts = [] if self.scope is None else [f"names matching {self.scope.source}:"]
        parts.append(self.verb)
        if self.verb == "sample":
            parts.append(f"{self.percent} %")
        if self.pattern is not None:
            parts.append(self.pattern.source)
        if self.template is not None:
            parts.append(f"-> {self.template.source!r}")
        return " ".join(parts)


class RuleSet:
    """All rules of a text, sorted by what they do."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules
        self.by_verb: dict[str, list[Rule]] = {}
        for rule in rules:
            self.by_verb.setdefault(rule.verb, []).append(rule)
        samples = self.by_verb.get("sample", [])
        if len(samples) > 1:
            raise RuleError(f"line {samples[1].line}: {samples[1].text!r}: at most one sample rule is allowed")
        self.sample_percent = samples[0].percent if samples else 100
        self.allow_http_url = "allow_http_url" in self.by_verb
        self.skip_compression = "skip_compression" in self.by_verb
        self.skip_submission = "skip_submission" in self.by_verb

    @property
    def slow_rules(self) -> list[Rule]:
        """Rules whose value pattern RE2 does not take: they see values up to a bound only."""
        return [
            r
            for r in self.rules
            if r.pattern is not None and r.verb != "copy_session_field" and not r.pattern.is_linear
        ]


def parse_rules(text: str) -> RuleSet:
    """Reads a rule text, includes expanded; empty text is `include default`. Raises RuleError."""
    if not text.strip():
        text = DEFAULT
    rules: list[Rule] = []
    for number, line in enumerate(text.split("\n"), 1):
        include = _INCLUDE.fullmatch(line)
        if include is None:
            rule = parse_rule(line, number)
            rules += [rule] if rule is not None else []
            continue
        name = _DEFAULT_SET if include[1] == "default" else include[1]
        if name not in PREDEFINED:
            raise RuleError(f"line {number}: {line.strip()!r}: the sets are debug, standard, strict and default")
        for predefined in PREDEFINED[name].splitlines():
            rule = parse_rule(predefined, number)
            assert rule is not None
            rules.append(rule)
    return RuleSet(rules)


def parse_rule(line: str, number: int = 0) -> Rule | None:
    """Reads one line, without includes; None for an empty one or a comment. Raises RuleError."""
    try:
        return _parse_rule(line, number)
    except PatternError as error:
        raise RuleError(f"line {number}: {line.strip()!r}: {error}") from None


def _parse_rule(line: str, number: int) -> Rule | None:
    if _COMMENT.fullmatch(line):
        return None
    text = line.strip()
    if match := _WORD.fullmatch(line):
        return Rule(match[1], None, None, None, 0, number, text)
    if match := _SESSION.fullmatch(line):
        return Rule("copy_session_field", None, _matcher(match[1]), None, 0, number, text)
    if match := _SAMPLE.fullmatch(line):
        percent = int(match[1]) if len(match[1]) < 4 else 0
        if not 1 <= percent <= 99:
            raise PatternError("a sample is a percentage from 1 to 99")
        return Rule("sample", None, None, None, percent, number, text)
    if match := _SCOPED.fullmatch(line):
        return Rule(match[2], _matcher(match[1]), None, None, 0, number, text)
    if match := _PATTERNED.fullmatch(line):
        make = _finder if match[2].endswith("_found") else _matcher
        return Rule(match[2], _matcher(match[1]), make(match[3]), None, 0, number, text)
    if match := _REPLACE.fullmatch(line):
        pattern = _finder(match[2])
        template = Template(unquote(match[3]), pattern)
        return Rule("replace", _matcher(match[1]), pattern, template, 0, number, text)
    raise PatternError("this is no rule (a scope and a pattern stand between two of one separator of ~ ! % | /)")


def _matcher(expression: str) -> Pattern:
    return Pattern(anchored(unquote(expression)))


def _finder(expression: str) -> Pattern:
    return Pattern(unquote(expression))


def unquote(expression: str) -> str:
    """The text between two separators, escaped separators inside freed. Raises PatternError."""
    separator = expression[:1]
    if len(expression) < 2 or separator not in SEPARATORS or expression[-1] != separator:
        raise PatternError(f"{expression} does not begin and end with the same separator, one of ~ ! % | /")
    inner = expression[1:-1]
    previous = ""
    for char in inner:
        if char == separator and previous != "\\":
            raise PatternError(f"the separator {separator} stands unescaped inside {expression}")
        previous = char
    return inner.replace("\\" + separator, separator)
