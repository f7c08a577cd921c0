"""The ledgers of several workers: as text from one process to another, and put together.

A worker that died leaves what it last reported. What was open in it has ended then: it was lost with the worker, but
what lay in its spool is found there by whoever comes after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from vxsniff.app.ledger import Entry, Equation, Ledger

CRASHED: Final = "crashed"
LEFT_IN_SPOOL: Final = "left_in_spool"
_SPOOLED: Final = "spooled"


def to_json(ledger: Ledger) -> str:
    return json.dumps(ledger)


def from_json(text: str) -> Ledger:
    """Raises ValueError for what is none."""
    try:
        equations, facts = json.loads(text)
        return Ledger(
            tuple(
                Equation(name, total, meaning, tuple(Entry(*part) for part in parts))
                for name, total, meaning, parts in equations
            ),
            tuple(Entry(*fact) for fact in facts),
        )
    except TypeError as error:
        raise ValueError(str(error)) from None


def settled(ledger: Ledger) -> Ledger:
    """The last ledger of a worker that died: nothing is open any more."""
    return Ledger(
        tuple(equation._replace(parts=_settled_parts(equation.parts)) for equation in ledger.equations),
        tuple(fact for fact in ledger.facts if not fact.is_open),
    )


def _settled_parts(parts: tuple[Entry, ...]) -> tuple[Entry, ...]:
    spooled = sum(part.value for part in parts if part.is_open and part.name == _SPOOLED)
    crashed = sum(part.value for part in parts if part.is_open) - spooled
    ends = (
        Entry(CRASHED, crashed, "lost with a worker that died"),
        Entry(LEFT_IN_SPOOL, spooled, "in the spool of a worker that died: counted again as what its successor found"),
    )
    return (*(part for part in parts if not part.is_open), *(end for end in ends if end.value))


def merged(some: Iterable[Ledger], own: Iterable[Entry]) -> Ledger:
    """The sum of all of them, by name. `own` facts are known better than sums: they take their place."""
    equations: dict[str, Equation] = {}
    facts: dict[str, Entry] = {}
    for ledger in some:
        for equation in ledger.equations:
            before = equations.get(equation.name, equation._replace(total=0, parts=()))
            parts = tuple(_added({part.name: part for part in before.parts}, equation.parts).values())
            equations[equation.name] = before._replace(total=before.total + equation.total, parts=parts)
        _added(facts, ledger.facts)
    return Ledger(tuple(equations.values()), tuple({**facts, **{fact.name: fact for fact in own}}.values()))


def _added(to: dict[str, Entry], entries: Iterable[Entry]) -> dict[str, Entry]:
    for entry in entries:
        before = to.get(entry.name)
        to[entry.name] = entry if before is None else before._replace(value=before.value + entry.value)
    return to
