"""Applies a RuleSet to the details of a call.

Order: stop, stop_if_found, stop_if, stop_unless_found, stop_unless, sample, remove, remove_unless_found,
remove_if_found, remove_unless, remove_if, drop empty, replace, drop empty; nothing left = no call.

A call has some 25 details and few distinct names, so which rules concern a name is decided once and kept, for at most
MAX_PLANS names (names come from the wire). Details come in runs: one that recurs, such as a client's headers, is judged
and written as JSON once, for what becomes of a detail depends on nothing but itself (stop_unless counts over all of a
call, and is asked for each). A value that is known to be only a part, because the rest was left out at a limit, is
shipped when no rule looks at such values, and left out whole otherwise: a rule can't judge what it can't see.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Final

import orjson
from mypy_extensions import mypyc_attr

from vxsniff.call.patterns import Pattern, Template
from vxsniff.call.rules import Rule, RuleSet

Detail = tuple[str, str]
"""Name and value."""

PASSED: Final = 0
STOPPED: Final = 1
SAMPLED_OUT: Final = 2
EMPTIED: Final = 3

MAX_PLANS: Final = 4096
MAX_NAME_CHARS: Final = 256
"""Longer names are not remembered."""
MAX_TREATED: Final = 4096
"""How many values are remembered with what the rules made of them, of all names together."""
MAX_TREATED_CHARS: Final = 256

_NO_NAMES: Final[Set[str]] = frozenset()


class _Treated:
    """What rules made of values, for all plans that share it."""

    __slots__ = ("_count", "_of_plans")

    def __init__(self) -> None:
        self._of_plans: list[dict[str, str]] = []
        self._count = 0

    def for_plan(self) -> dict[str, str]:
        """A plan's share, in which it looks values up."""
        values: dict[str, str] = {}
        self._of_plans.append(values)
        return values

    def remember(self, values: dict[str, str], value: str, treated: str) -> None:
        if self._count >= MAX_TREATED:
            for of_plan in self._of_plans:
                of_plan.clear()
            self._count = 0
        self._count += 1
        values[value] = treated


class _Plan:
    """What the rules do to details of one name."""

    __slots__ = (
        "_memory",
        "_treated",
        "is_idle",
        "is_stopped",
        "looks_at_values",
        "remove_if",
        "remove_unless",
        "removes",
        "replacements",
        "stop_if",
        "stop_unless",
    )

    def __init__(self, name: str, rules: RuleSet, memory: _Treated) -> None:
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

        self.looks_at_values = any(
            (*self.stop_if, *self.stop_unless, *self.remove_unless, *self.remove_if, self.replacements)
        )
        self.is_idle = not (self.is_stopped or self.removes or self.looks_at_values)
        self._memory = memory
        self._treated: dict[str, str] | None = None

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
        if len(value) > MAX_TREATED_CHARS:
            return self._treat(value)
        values = self._treated
        if values is None:
            values = self._treated = self._memory.for_plan()
        treated = values.get(value)
        if treated is None:
            treated = self._treat(value)
            self._memory.remember(values, value, treated)
        return treated

    def _treat(self, value: str) -> str:
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


@mypyc_attr(acyclic=True)
class Run:
    """Details that stand together in a call. `stops` when a stop rule catches one of them; `kept` is what the rules
    left of them once the policy has treated the run; of one that has come again, `json` is that as members of an array.
    """

    __slots__ = ("details", "is_treated", "json", "kept", "partial", "policy", "stops")

    def __init__(self, policy: Policy, details: list[Detail], partial: Set[str], is_idle: bool, stops: bool) -> None:
        self.policy = policy
        self.details = details
        self.partial = partial
        self.stops = stops
        self.is_treated = is_idle
        self.kept = details
        self.json: orjson.Fragment | None = None

    def came_again(self) -> None:
        """It is treated, and worth to be written once for all."""
        if self.json is None:
            self.json = orjson.Fragment(orjson.dumps(self.kept)[1:-1])


class Policy:
    """Rules at work. `draw` gives a random integer from 0 to 99, for the sample rule."""

    def __init__(self, rules: RuleSet, draw: Callable[[], int]) -> None:
        self.rules = rules
        self._draw = draw
        self._plans: dict[str, _Plan] = {}
        self._memory = _Treated()
        self._unless = (rules.by_verb.get("stop_unless_found", []), rules.by_verb.get("stop_unless", []))
        self._asks_unless = any(self._unless)
        self._session = [r.pattern for r in rules.by_verb.get("copy_session_field", ()) if r.pattern is not None]
        self._copied: dict[str, bool] = {}

    def _plan(self, name: str) -> _Plan:
        """The plan of a name."""
        plan = self._plans.get(name)
        if plan is None:
            if len(self._plans) < MAX_PLANS and len(name) <= MAX_NAME_CHARS:
                plan = self._plans[name] = _Plan(name, self.rules, self._memory)
            else:
                plan = _Plan(name, self.rules, _Treated())
        return plan

    def copies_session_field(self, name: str) -> bool:
        """Whether a cookie of that lower-case name becomes a session field."""
        copies = self._copied.get(name)
        if copies is None:
            copies = any(p.matches(name, otherwise=False) for p in self._session)
            if len(self._copied) < MAX_PLANS and len(name) <= MAX_NAME_CHARS:
                self._copied[name] = copies
        return copies

    @property
    def has_session_rules(self) -> bool:
        return bool(self._session)

    def run(self, details: list[Detail], partial: Set[str] = _NO_NAMES) -> Run:
        """Details as a run of their own. `partial` names those whose value is only a part."""
        is_idle = True
        stops = False
        for name, value in details:
            plan = self._plan(name)
            if not plan.is_idle:
                is_idle = False
                stops = stops or plan.stops(value)
            elif not value:
                is_idle = False
        return Run(self, details, partial, is_idle, stops)

    def joined(self, runs: list[Run]) -> Run:
        """Treated runs as one."""
        details: list[Detail] = []
        kept: list[Detail] = []
        stops = False
        for run in runs:
            self._treat(run)
            details += run.details
            stops = stops or run.stops
            kept += run.kept
        joined = Run(self, details, _NO_NAMES, False, stops)
        joined.is_treated = True
        joined.kept = kept
        return joined

    def outcome(self, runs: list[Run]) -> int:
        """What becomes of the call that they make: PASSED, when all that may be shipped is in `kept`, or why not."""
        for run in runs:
            if run.stops:
                return STOPPED
        if self._asks_unless and self._is_stopped_unless(runs):
            return STOPPED
        if self.rules.sample_percent < 100 and self._draw() >= self.rules.sample_percent:
            return SAMPLED_OUT
        outcome = EMPTIED
        for run in runs:
            self._treat(run)
            if run.kept:
                outcome = PASSED
        return outcome

    def apply(self, details: list[Detail], partial: Set[str] = _NO_NAMES) -> tuple[int, list[Detail]]:
        """The same for a call whose details are one run: what becomes of it, and what may be shipped."""
        run = self.run(details, partial)
        outcome = self.outcome([run])
        return outcome, run.kept if outcome == PASSED else []

    def _treat(self, run: Run) -> None:
        if run.is_treated:
            return
        kept: list[Detail] = []
        for name, value in run.details:
            plan = self._plan(name)
            if not plan.is_idle:
                if name in run.partial and plan.looks_at_values:
                    continue
                value = plan.treat(value)
            if value:
                kept.append((name, value))
        run.kept = kept
        run.is_treated = True

    def _is_stopped_unless(self, runs: list[Run]) -> bool:
        """Each stop_unless rule asks for exactly one matching detail.

        The published loggers count matches over all rules and compare with the number of rules: that stops a call in
        which one rule matches twice, as here, but also lets two matches of one rule stand for another rule's missing
        one, which here stops the call.
        """
        for index, rules in enumerate(self._unless):
            for rule in rules:
                assert rule.pattern is not None
                passed = 0
                for run in runs:
                    for name, value in run.details:
                        if rule in self._plan(name).stop_unless[index]:
                            if index == 0:
                                passed += rule.pattern.found(value, otherwise=False)
                            else:
                                passed += rule.pattern.matches(value, otherwise=False)
                if passed != 1:
                    return True
        return False
