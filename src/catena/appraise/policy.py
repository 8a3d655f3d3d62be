"""Policies: named clauses in CEL over the facts of one boot (TRUST, attestation step 5j).

A policy file is UTF-8 text of clauses; every clause must be true, and each that is not gives
its own reason::

    // a comment
    [secure-boot] Secure Boot is on (firmware variable SecureBoot)
      secure_boot

A header ``[name] sentence`` starts at the margin and the sentence says what holds when the
clause is true; the CEL expression below it is indented by two spaces or more and may span lines.
The facts are the rows of ``facts.FACT_TABLE``.

Nothing passes by accident: a policy that is empty, does not parse, names an unknown fact,
yields something else than a boolean, accepts the worst boot there can be, or has a clause that
is true of every boot (``appraise.tautology`` says how far that is found) is an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

import msgspec

from catena.appraise.clause import (
    Clause,
    Place,
    PolicyError,
    PolicySyntax,
    bound_names,
    mentions,
    split,
)
from catena.appraise.facts import Facts, best_facts, worst_facts
from catena.appraise.tautology import holds, is_tautology
from catena.formats.nodeapi import Reason
from catena.formats.policies import MAX_POLICY_TEXT
from catena.ids import Sha256Hex

if TYPE_CHECKING:
    from cel import Program

MAX_POLICY = MAX_POLICY_TEXT

REMEMBERED = 1024
"""Judgements kept: facts of so many nodes at once."""

_CEL_POSITION = re.compile(r"<input>:(\d{1,9}):(\d{1,9}): ([^\n]{1,200})")
_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_EVALUATION = (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError)


class EmptyPolicy(PolicyError):
    """A policy without a clause would admit everything."""

    code = "policy-empty"


class UnknownFact(PolicyError):
    """A clause about a fact that no boot has: it could never be judged."""

    code = "policy-unknown-fact"
    remedy = "Use only facts that `catena policy facts` lists."


class NonBooleanPolicy(PolicyError):
    """A clause that is neither true nor false."""

    code = "policy-not-boolean"


class UnusablePolicy(PolicyError):
    """A clause that cannot be evaluated: mixed types, an unknown function."""

    code = "policy-unusable"


class AlwaysTruePolicy(PolicyError):
    """A policy that would admit the worst boot there can be, or a clause that is no check."""

    code = "policy-always-true"
    remedy = "Add clauses that fail for an unacceptable boot."


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A compiled policy; ``digest`` is the SHA-256 of its text, for the log."""

    clauses: tuple[Clause, ...]
    digest: Sha256Hex
    programs: tuple[Program, ...] = field(repr=False)

    def judge(self, facts: Facts) -> tuple[Reason, ...]:
        """One reason per clause that does not hold, in order; none means the policy holds.

        A clause that fails to evaluate does not hold.
        """
        return _failing(self, facts)


@lru_cache(maxsize=REMEMBERED)
def _failing(policy: Policy, facts: Facts) -> tuple[Reason, ...]:
    """Facts and policy alone decide, and a node's facts are the same from boot to boot."""
    values = msgspec.structs.asdict(facts)
    return tuple(
        Reason(code=f"policy:{clause.name}", message=f"Policy does not hold: {clause.says}")
        for clause, program in zip(policy.clauses, policy.programs, strict=True)
        if not holds(program, values)
    )


def compile_policy(text: str) -> Policy:
    """Compile and check a policy. Raises its first ``PolicyError`` if it must not be used."""
    checked = check_policy(text)
    if checked.faults:
        raise checked.faults[0]
    digest = Sha256Hex(hashlib.sha256(text.encode()).hexdigest())
    return Policy(clauses=checked.clauses, digest=digest, programs=checked.programs)


@dataclass(frozen=True, slots=True)
class CheckedPolicy:
    """A policy and all that is wrong with it, in the order of the file.

    What is wrong with the policy as a whole comes last, and is looked for only in one whose every
    clause is sound. Without faults there is a program per clause.
    """

    clauses: tuple[Clause, ...]
    programs: tuple[Program, ...] = field(repr=False)
    faults: tuple[PolicyError, ...]


def check_policy(text: str) -> CheckedPolicy:
    """Compile a policy and find everything that is wrong with it."""
    if len(text) > MAX_POLICY:
        what = f"a policy has at most {MAX_POLICY} characters"
        return CheckedPolicy((), (), (PolicySyntax(what, place=Place(1, 1)),))
    clauses, broken = split(text)
    faults: list[PolicyError] = list(broken)
    programs: list[Program] = []
    for clause in clauses:
        try:
            program = _compile(clause)
            programs.append(program)
            faults.extend(_clause_faults(clause, program))
        except PolicySyntax as error:
            faults.append(error)
    if not faults:
        faults.extend(_whole_faults(tuple(programs)))
    faults.sort(key=lambda fault: fault.place or _END)
    return CheckedPolicy(clauses, tuple(programs), tuple(faults))


_END = Place(MAX_POLICY + 1, 1)


def default_policy_text() -> str:
    """The policy that catena ships."""
    return resources.files("catena.appraise").joinpath("default_policy.cel").read_text("utf-8")


def _compile(clause: Clause) -> Program:
    import cel  # noqa: PLC0415  loading it takes 130 ms, which commands without a policy save

    try:
        return cel.compile(clause.expression)
    except ValueError as error:
        match = _CEL_POSITION.search(str(error))
        place = Place(clause.line + int(match[1]), int(match[2])) if match else clause.start
        what = _PRINTABLE.sub("?", match[3]) if match else "not a CEL expression"
        raise PolicySyntax(f"clause {clause.name}: {what}", place=place) from error


def _clause_faults(clause: Clause, program: Program) -> Iterator[PolicyError]:
    """What is wrong with one clause. One that names unknown facts cannot be evaluated."""
    unknown = tuple(_unknown_facts(clause, program))
    yield from unknown
    if not unknown:
        try:
            _check_boolean(clause, program)
        except PolicyError as error:
            yield error
            return
        if is_tautology(clause.expression, program):
            what = f"clause {clause.name} is true whatever a node booted"
            yield AlwaysTruePolicy(what, place=clause.start)


def _unknown_facts(clause: Clause, program: Program) -> Iterator[UnknownFact]:
    """Each name that is no fact, where it stands first.

    CEL says which names are variables, a comprehension's among them; the text says where
    each is free. A variable that is neither a fact nor seen to be bound is refused, too.
    """
    what = f"clause {clause.name} names an unknown fact"
    unknown = set(program.variables()) - worst_facts().keys()
    free: dict[str, int] = {}
    for mention in mentions(clause.expression):
        free.setdefault(mention.name, mention.offset)
    bound = set(bound_names(clause.expression))
    for name in sorted(unknown, key=lambda name: (free.get(name, -1), name)):
        if name in free:
            yield UnknownFact(what, place=clause.at(free[name]), got=name[:64])
        elif name not in bound:
            yield UnknownFact(what, place=clause.start, got=name[:64])


def _check_boolean(clause: Clause, program: Program) -> None:
    for values in (worst_facts(), best_facts()):
        try:
            result = program.execute(values)
        except _EVALUATION as error:
            what = f"clause {clause.name} cannot be evaluated"
            raise UnusablePolicy(what, place=clause.start) from error
        if not isinstance(result, bool):
            what = f"clause {clause.name} is neither true nor false"
            raise NonBooleanPolicy(what, place=clause.start, got=type(result).__name__)


def _whole_faults(programs: tuple[Program, ...]) -> Iterator[PolicyError]:
    """What no single clause is to blame for."""
    worst = worst_facts()
    if not programs:
        yield EmptyPolicy("the policy has no clause")
    elif all(holds(program, worst) for program in programs):
        yield AlwaysTruePolicy("the policy accepts a boot whose every fact is at its worst")
