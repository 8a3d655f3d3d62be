"""Whether a clause is true of every boot, and so no check at all.

A clause is tried with facts from all over their ranges. That *proves* it a tautology where the
samples are decisive: it only compares facts with each other or with what it writes out
(``== != < <= > >= in``) and joins that with ``! && || ?:``. Then its value changes at the numbers and
strings that it names and nowhere else, and the samples stand on, before and behind each.

Not found, and not refused: a clause that calculates, calls a function (``matches``, ``size``) or a
comprehension, and one of so many facts that the samples exceed ``MAX_SAMPLES``. Such a
policy is still refused if it accepts the worst boot.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

from catena.appraise.clause import literals, without_literals
from catena.appraise.facts import FACT_TABLE, FactRow, FactValue, worst_facts

if TYPE_CHECKING:
    from cel import Program

MAX_SAMPLES = 4096

_DECISIVE = frozenset(
    ("!_", "-_", "_&&_", "_||_", "_?_:_", "@in", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_")
)
_NUMBER = re.compile(r"(?<![\w.])(?:0[xX][0-9a-fA-F]{1,16}|\d{1,20})")
_FRACTION = re.compile(r"\d\s*[.eE]|\.\s*\d")


def is_tautology(expression: str, program: Program) -> bool:
    """Whether the clause is proven to be true of every boot."""
    named = [row for row in FACT_TABLE if row.name in program.variables()]
    if not named:
        return holds(program, worst_facts())
    samples = _samples(expression, program, named)
    return samples is not None and all(holds(program, values) for values in samples)


def holds(program: Program, values: Mapping[str, FactValue]) -> bool:
    """Whether the expression is true, and nothing else than true."""
    try:
        return program.execute(dict(values)) is True
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError):
        return False


def _samples(
    expression: str, program: Program, named: list[FactRow]
) -> Iterator[dict[str, FactValue]] | None:
    """Assignments that are decisive for the clause, or None where none are known to be."""
    code, texts = without_literals(expression), literals(expression)
    calls = set(program.functions()) - _DECISIVE
    if calls or _FRACTION.search(code) or any("\\" in text for text in texts):
        return None
    numbers = tuple(int(match, 0) for match in _decimal(code))
    ranges = [_range(row, numbers, texts) for row in named]
    if prod(len(values) for values in ranges) > MAX_SAMPLES:
        return None
    names = [row.name for row in named]
    rest = worst_facts()
    return (
        {**rest, **dict(zip(names, values, strict=True))} for values in itertools.product(*ranges)
    )


def _decimal(code: str) -> Iterator[str]:
    """The numbers of an expression as Python reads them: no leading zero makes them octal."""
    for match in _NUMBER.findall(code):
        yield match if match[:2].lower() == "0x" else match.lstrip("0") or "0"


def _range(row: FactRow, numbers: tuple[int, ...], texts: tuple[str, ...]) -> list[FactValue]:
    """Values of a fact on and around everything that the clause can compare it with."""
    if isinstance(row.worst, bool):
        return [False, True]
    if isinstance(row.worst, int) and isinstance(row.best, int):
        low, high = sorted((row.worst, row.best))
        near = {sign * n + step for n in numbers for step in (-1, 0, 1) for sign in (-1, 1)}
        return [low, *sorted(n for n in near if low < n < high), high]
    if isinstance(row.worst, str):
        # Behind each text comes the text with the least character added.
        return list(dict.fromkeys(("", "\1", *texts, *(f"{text}\1" for text in texts))))
    return [(), *((text,) for text in ("\1", *texts)), texts]
