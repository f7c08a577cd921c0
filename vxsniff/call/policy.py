"""Applies a RuleSet to the details of a call.

Order: stop, stop_if_found, stop_if, stop_unless_found, stop_unless, sample, remove, remove_unless_found,
remove_if_found, remove_unless, remove_if, drop empty, replace, drop empty; nothing left = no call.

A call has some 25 details and few distinct names, so which rules concern a name is decided once and kept, for at most
MAX_PLANS names (names come from the wire). A value that is known to be only a part, because the rest was left out at a
limit, is shipped when no rule looks at such values, and left out whole otherwise: a rule can't judge what it can't see.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Final

from vxsniff.call.patterns import Pattern, Template
from vxsniff.call.rules import Rule, RuleSet

Detail = tuple[str, str]
"""Name and value."""

PASSED: Final = 0
STOPPED: Final = 1
SAMPLED_OUT: Final = 2
EMPTIED: Final = 3

MAX_PLANS: Final = 4096


class _Plan:
    """What the rules do to details of one name."""

    __slots__ = (
        "is_stopped",
        "remove_if",
        "remove_unless",
        "removes",
        "replacements",
        "stop_if",
        "stop_unless",
    )

    def __init__(self, name: str, rules: RuleSet) -> None:
        def concerning(verb: str) -> list[Rule]:
            found = rules.by_verb.get(verb, ())
            return [r for r in found if r.scope is not None and r.scope.matches(name, otherwise=True)]

        def patterns(verb: str) -> list[Pattern]:
            return [r.pattern for r in concerning(verb) if r.pattern is not None]

        self.is_stopped = bool(concerning("stop"))
        self.stop_if = (patterns("stop_if_found"), patterns("stop_if"))
        self.stop_unless = (concerning("stop_unless_found"), concerning("stop_unless"))
        self.removes = bool(concerning("remove"))
        self.remove_unless = (patterns("remove_unless_found"), patterns("remove_unless"))
        self.remove_if = (patterns("remove_if_found"), patterns("remove_if"))
        self.replacements: list[tuple[Pattern, Template]] = [
            (r.pattern, r.template) for r in concerning("replace") if r.pattern is not None and r.template is not None
        ]

    @property
    def looks_at_values(self) -> bool:
        return any((*self.stop_if, *self.stop_unless, *self.remove_unless, *self.remove_if, self.replacements))

    @property
    def is_idle(self) -> bool:
        return not (self.is_stopped or self.removes or self.looks_at_values)

    def stops(self, value: str) -> bool:
        found, matched = self.stop_if
        return (
            self.is_stopped
            or any(p.found(value, otherwise=True) for p in found)
            or any(p.matches(value, otherwise=True) for p in matched)
        )

    def treat(self, value: str) -> str:
        """The value after remove and replace; empty when nothing is left."""
        if self.removes:
            return ""
        if any(not p.found(value, otherwise=False) for p in self.remove_unless[0]):
            return ""
        if any(p.found(value, otherwise=True) for p in self.remove_if[0]):
            return ""
        if any(not p.matches(value, otherwise=False) for p in self.remove_unless[1]):
            return ""
        if any(p.matches(value, otherwise=True) for p in self.remove_if[1]):
            return ""
        if value:
            for pattern, template in self.replacements:
                value = pattern.replace(value, template)
        return value


class Policy:
    """Rules at work. `draw` gives a random integer from 0 to 99, for the sample rule."""

    def __init__(self, rules: RuleSet, draw: Callable[[], int]) -> None:
        self.rules = rules
        self._draw = draw
        self._plans: dict[str, _Plan | None] = {}
        self._unless = (rules.by_verb.get("stop_unless_found", []), rules.by_verb.get("stop_unless", []))
        self._session = [r.pattern for r in rules.by_verb.get("copy_session_field", ()) if r.pattern is not None]

    def _plan(self, name: str) -> _Plan | None:
        """The plan of a name, None when no rule concerns it."""
        try:
            return self._plans[name]
        except KeyError:
            plan: _Plan | None = _Plan(name, self.rules)
            if plan is not None and plan.is_idle:
                plan = None
            if len(self._plans) < MAX_PLANS:
                self._plans[name] = plan
            return plan

    def copies_session_field(self, name: str) -> bool:
        """Whether a cookie of that lower-case name becomes a session field."""
        return any(p.matches(name, otherwise=False) for p in self._session)

    @property
    def has_session_rules(self) -> bool:
        return bool(self._session)

    def apply(self, details: list[Detail], partial: Set[str] = frozenset()) -> tuple[int, list[Detail]]:
        """What becomes of a call: PASSED with its details as they may be shipped, or why not.

        `partial` names details whose value is only a part.
        """
        planned = [(name, value, self._plan(name)) for name, value in details]
        for _, value, plan in planned:
            if plan is not None and plan.stops(value):
                return STOPPED, []
        if self._is_stopped_unless(planned):
            return STOPPED, []
        if self.rules.sample_percent < 100 and self._draw() >= self.rules.sample_percent:
            return SAMPLED_OUT, []
        kept: list[Detail] = []
        for name, value, plan in planned:
            if plan is not None:
                if name in partial and plan.looks_at_values:
                    continue
                value = plan.treat(value)
            if value:
                kept.append((name, value))
        return (PASSED, kept) if kept else (EMPTIED, kept)

    def _is_stopped_unless(self, planned: list[tuple[str, str, _Plan | None]]) -> bool:
        """Each stop_unless rule asks for exactly one matching detail.

        The published loggers count matches over all rules and compare with the number of rules: that stops a call in
        which one rule matches twice, as here, but also lets two matches of one rule stand for another rule's missing
        one, which here stops the call.
        """
        for index, rules in enumerate(self._unless):
            for rule in rules:
                assert rule.pattern is not None
                passed = 0
                for _, value, plan in planned:
                    if plan is not None and rule in plan.stop_unless[index]:
                        if index == 0:
                            passed += rule.pattern.found(value, otherwise=False)
                        else:
                            passed += rule.pattern.matches(value, otherwise=False)
                if passed != 1:
                    return True
        return False
