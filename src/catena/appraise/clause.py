"""Clauses: how the text of a policy is divided, and where in it something is wrong.

Lines and columns count from 1, columns in characters of the file. A clause's expression keeps its
indent and its empty lines, so a position in the expression is one in the file but for the
lines before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from catena.errors import CatenaError, ExitCode

MAX_CLAUSES = 128
MAX_EXPRESSION = 2048
"""Characters of one clause: the CEL library recurses, and a deep expression ends the process."""

_HEADER = re.compile(r"\[([a-z][a-z0-9-]{0,63})\] (\S.{0,199})")
_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?!\w)(?!\s*\()")
_COMPREHENSION = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_OPAQUE = re.compile(
    r"//[^\n]*"
    r"|[bB]?[rR][bB]?(?P<raw>\"\"\"|'''|\"|')(?P<raw_text>.*?)(?P=raw)"
    r"|[bB]?(?P<quote>\"\"\"|'''|\"|')(?P<text>(?:\\.|(?!(?P=quote)).)*)(?P=quote)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where in a policy file; both count from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        """``line 3, column 7``."""
        return f"line {self.line}, column {self.column}"


class PolicyError(CatenaError):
    """A policy that cannot be used; nothing is admitted under it.

    ``place`` is where it is wrong, or None if the policy is wrong as a whole.
    """

    code = "policy"
    exit_code = ExitCode.POLICY
    remedy = "Correct the policy and check it with `catena policy check`."

    def __init__(
        self,
        message: str,
        *,
        place: Place | None = None,
        expected: str | None = None,
        got: str | None = None,
    ) -> None:
        super().__init__(message, expected=expected, got=got)
        self.place = place

    def __str__(self) -> str:
        """The message behind its place."""
        told = super().__str__()
        return f"{self.place}: {told}" if self.place else told

    def as_dict(self) -> dict[str, object]:
        """The JSON object of the error, with its place."""
        fields = super().as_dict()
        if self.place:
            fields |= {"line": self.place.line, "column": self.place.column}
        return fields


class PolicySyntax(PolicyError):
    """Text that is not a policy."""

    code = "policy-syntax"


@dataclass(frozen=True, slots=True)
class Clause:
    """One named condition; ``says`` is what holds when it is true, ``line`` its header's."""

    name: str
    says: str
    expression: str
    line: int

    @property
    def start(self) -> Place:
        """Where the expression starts."""
        return self.at(len(self.expression) - len(self.expression.lstrip()))

    def at(self, offset: int) -> Place:
        """The place in the file of a character of the expression."""
        before = self.expression[:offset]
        return Place(self.line + 1 + before.count("\n"), offset - before.rfind("\n"))


@dataclass(frozen=True, slots=True)
class Mention:
    """A name that a clause uses and no comprehension around it binds."""

    name: str
    offset: int


def mentions(expression: str) -> Iterator[Mention]:
    """Every free name of an expression that CEL could parse, in order; keywords are among them."""
    code = without_literals(expression)
    scopes = tuple(_scopes(code))
    for match in _NAME.finditer(code):
        at = match.start()
        if not any(name == match[0] and at in places for name, places in scopes):
            yield Mention(match[0], at)


def bound_names(expression: str) -> Iterator[str]:
    """The names that comprehensions bind."""
    return (name for name, _ in _scopes(without_literals(expression)))


def literals(expression: str) -> tuple[str, ...]:
    """The text of every string that an expression writes out, escapes as they are written."""
    found = (
        match["raw_text"] if match["raw"] else match["text"]
        for match in _OPAQUE.finditer(expression)
        if match["raw"] or match["quote"]
    )
    return tuple(dict.fromkeys(found))


def without_literals(expression: str) -> str:
    """The expression with blanks for its strings and comments; offsets stay."""
    return _OPAQUE.sub(_blank, expression)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _scopes(code: str) -> Iterator[tuple[str, range]]:
    """What each comprehension binds, and where: in its own parentheses, and nowhere else."""
    for match in _COMPREHENSION.finditer(code):
        depth = 1
        for end in range(match.end(), len(code)):
            depth += (code[end] in "([{") - (code[end] in ")]}")
            if not depth:
                break
        yield match[1], range(match.start(1), end)


def split(text: str) -> tuple[tuple[Clause, ...], tuple[PolicySyntax, ...]]:
    """The clauses of a policy, and what in its text is none.

    A clause that is faulty itself is among the faults only, and the others are still found.
    """
    division = _Division([], [], set())
    for number, line in enumerate(text.splitlines(), start=1):
        division.take(line, number)
    division.finish()
    return tuple(division.clauses), tuple(division.faults)


@dataclass(slots=True)
class _Division:
    """A policy read up to some line: the open header, if any, and what followed it."""

    clauses: list[Clause]
    faults: list[PolicySyntax]
    seen: set[str]
    header: tuple[str, str, int] | None = None
    body: list[str] | None = None
    """None before the first header; after a faulty header lines are read, and dropped."""

    def take(self, line: str, number: int) -> None:
        if line.startswith("["):
            self.finish()
            self.body = []
            try:
                self.header = self._header(line, number)
            except PolicySyntax as fault:
                self.faults.append(fault)
        elif line.startswith("  ") and line.strip() and self.body is not None:
            self.body.append(line)
        else:
            if line.strip() and not line.startswith("//"):
                what = "expected a comment, a `[name] sentence` or a clause"
                self.faults.append(_fault(what, number, 1 + len(line) - len(line.lstrip())))
            if self.body is not None:
                self.body.append("")

    def finish(self) -> None:
        """Close the open clause."""
        if self.header is None or self.body is None:
            return
        name, says, line = self.header
        expression = "\n".join(self.body).rstrip()
        if not expression:
            self.faults.append(_fault(f"clause {name} has no expression", line))
        elif len(expression) > MAX_EXPRESSION:
            self.faults.append(_fault(f"clause {name} exceeds {MAX_EXPRESSION} characters", line))
        else:
            self.clauses.append(Clause(name, says, expression, line))
        self.header = None

    def _header(self, line: str, number: int) -> tuple[str, str, int]:
        match = _HEADER.fullmatch(line.rstrip())
        if match is None:
            raise _fault("a clause starts with `[name] sentence`", number)
        if unprintable := _PRINTABLE.search(line):
            what = "a sentence is of printable ASCII"
            raise _fault(what, number, 1 + unprintable.start())
        if match[1] in self.seen:
            raise _fault(f"clause {match[1]} appears twice", number, 2)
        if len(self.seen) == MAX_CLAUSES:
            raise _fault(f"a policy has at most {MAX_CLAUSES} clauses", number)
        self.seen.add(match[1])
        return match[1], match[2], number


def _fault(message: str, line: int, column: int = 1) -> PolicySyntax:
    return PolicySyntax(message, place=Place(line, column))
