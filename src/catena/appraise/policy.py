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
yields something else than a boolean, or accepts the worst boot there can be is an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

import msgspec

from catena.appraise.facts import Facts, FactValue, best_facts, worst_facts
from catena.errors import CatenaError, ExitCode
from catena.formats.nodeapi import Reason
from catena.ids import Sha256Hex

if TYPE_CHECKING:
    from cel import Program

MAX_POLICY = 64 * 1024
MAX_CLAUSES = 128
MAX_EXPRESSION = 2048
"""Characters of one clause: the CEL library recurses, and a deep expression ends the process."""

REMEMBERED = 1024
"""Judgements kept: facts of so many nodes at once."""

_HEADER = re.compile(r"\[([a-z][a-z0-9-]{0,63})\] (\S.{0,199})")
_BOUND_NAME = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_CEL_POSITION = re.compile(r"<input>:(\d+):\d+: ([^\n]{1,200})")
_PRINTABLE = re.compile(r"[^\x20-\x7e]")


class PolicyError(CatenaError):
    """A policy that cannot be used; nothing is admitted under it."""

    code = "policy"
    exit_code = ExitCode.POLICY
    remedy = "Correct the policy and check it with `catena policy check`."


class EmptyPolicy(PolicyError):
    """A policy without a clause would admit everything."""

    code = "policy-empty"


class PolicySyntax(PolicyError):
    """Text that is not a policy; ``line`` counts from 1."""

    code = "policy-syntax"

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class UnknownFact(PolicyError):
    """A clause about a fact that no boot has: it could never be judged."""

    code = "policy-unknown-fact"
    remedy = "Use only facts that the policy reference lists."


class NonBooleanPolicy(PolicyError):
    """A clause that is neither true nor false."""

    code = "policy-not-boolean"


class UnusablePolicy(PolicyError):
    """A clause that cannot be evaluated: mixed types, an unknown function."""

    code = "policy-unusable"


class AlwaysTruePolicy(PolicyError):
    """A policy that would admit the worst boot there can be."""

    code = "policy-always-true"
    remedy = "Add clauses that fail for an unacceptable boot."


@dataclass(frozen=True, slots=True)
class Clause:
    """One named condition; ``says`` is what holds when it is true."""

    name: str
    says: str
    expression: str
    line: int


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
        if not _holds(program, values)
    )


def compile_policy(text: str) -> Policy:
    """Compile and check a policy. Raises a ``PolicyError`` for one that must not be used."""
    if len(text) > MAX_POLICY:
        raise PolicySyntax(f"a policy has at most {MAX_POLICY} characters", line=1)
    clauses = tuple(_clauses(text))
    if not clauses:
        raise EmptyPolicy("the policy has no clause")
    programs = tuple(_compile(clause) for clause in clauses)
    for clause, program in zip(clauses, programs, strict=True):
        _check_facts(clause, program)
        _check_boolean(clause, program)
    _check_not_always_true(clauses, programs)
    digest = Sha256Hex(hashlib.sha256(text.encode()).hexdigest())
    return Policy(clauses=clauses, digest=digest, programs=programs)


def default_policy_text() -> str:
    """The policy that catena ships."""
    return resources.files("catena.appraise").joinpath("default_policy.cel").read_text("utf-8")


def _clauses(text: str) -> Iterator[Clause]:
    """Split the text at its headers."""
    header: tuple[str, str, int] | None = None
    body: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("["):
            if header is not None:
                yield _clause(header, body)
            header, body = _header(line, number, seen), []
        elif line.startswith("  ") and line.strip() and header is not None:
            body.append(line)
        elif line.strip() and not line.startswith("//"):
            raise PolicySyntax("expected a comment, a `[name] sentence` or a clause", line=number)
        else:
            body.append("")
    if header is not None:
        yield _clause(header, body)


def _header(line: str, number: int, seen: set[str]) -> tuple[str, str, int]:
    match = _HEADER.fullmatch(line.rstrip())
    if match is None or _PRINTABLE.search(line):
        raise PolicySyntax("a clause starts with `[name] sentence`", line=number)
    if match[1] in seen:
        raise PolicySyntax(f"clause {match[1]} appears twice", line=number)
    if len(seen) == MAX_CLAUSES:
        raise PolicySyntax(f"a policy has at most {MAX_CLAUSES} clauses", line=number)
    seen.add(match[1])
    return match[1], match[2], number


def _clause(header: tuple[str, str, int], body: list[str]) -> Clause:
    name, says, line = header
    expression = "\n".join(body).rstrip()
    if not expression.strip():
        raise PolicySyntax(f"clause {name} has no expression", line=line)
    if len(expression) > MAX_EXPRESSION:
        raise PolicySyntax(f"clause {name} exceeds {MAX_EXPRESSION} characters", line=line)
    return Clause(name, says, expression, line)


def _compile(clause: Clause) -> Program:
    import cel  # noqa: PLC0415  loading it takes 130 ms, which commands without a policy save

    try:
        return cel.compile(clause.expression)
    except ValueError as error:
        match = _CEL_POSITION.search(str(error))
        offset, what = (int(match[1]), match[2]) if match else (1, "not a CEL expression")
        what = _PRINTABLE.sub("?", what)
        raise PolicySyntax(f"clause {clause.name}: {what}", line=clause.line + offset) from error


def _check_facts(clause: Clause, program: Program) -> None:
    """Names bound by a comprehension are not facts; everything else must be one."""
    bound = set(_BOUND_NAME.findall(clause.expression))
    unknown = sorted(set(program.variables()) - worst_facts().keys() - bound)
    if unknown:
        raise UnknownFact(f"clause {clause.name} names an unknown fact", got=unknown[0][:64])


def _check_boolean(clause: Clause, program: Program) -> None:
    for values in (worst_facts(), best_facts()):
        try:
            result = program.execute(values)
        except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
            raise UnusablePolicy(f"clause {clause.name} cannot be evaluated") from error
        if not isinstance(result, bool):
            raise NonBooleanPolicy(
                f"clause {clause.name} is neither true nor false", got=type(result).__name__
            )


def _check_not_always_true(clauses: tuple[Clause, ...], programs: tuple[Program, ...]) -> None:
    """A constant clause is dead weight that looks like a check, so it is refused as well."""
    worst = worst_facts()
    for clause, program in zip(clauses, programs, strict=True):
        if not worst.keys() & program.variables() and program.execute(worst):
            raise AlwaysTruePolicy(f"clause {clause.name} is true whatever a node booted")
    if all(_holds(program, worst) for program in programs):
        raise AlwaysTruePolicy("the policy accepts a boot whose every fact is at its worst")


def _holds(program: Program, values: Mapping[str, FactValue]) -> bool:
    """Whether the expression is true, and nothing else than true."""
    try:
        return program.execute(dict(values)) is True
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError):
        return False
