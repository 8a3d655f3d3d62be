r"""The regular expressions of PCR policies: a subset that is matched in linear time.

RE2's syntax without captures, flags, look-around and word boundaries. The patterns are an
administrator's, the text is an attacker's, so nothing here backtracks: a pattern becomes an
automaton, and each character of the text moves it once (Thompson, CACM 11(6), 1968).

=====================  ==================================================================
``a``, ``\.``          the character; ``{`` that opens no repetition is one, too
``.``                  any character but the line feed
``\s \S \d \D \w \W``  ASCII classes
``\n``, ``\t``         line feed and tab
``[a-z\d]``, ``[^a]``  sets
``(a|b)``, ``(?:a)``   groups; nothing is captured
``* + ? {2} {2,} {2,4}``  repetition; a lazy ``?`` behind it changes nothing here
``^``, ``$``           at the two ends only: every pattern has to match the *whole* text
=====================  ==================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from catena.errors import FormatError

MAX_PATTERN = 1024
MAX_STATES = 512
MAX_DEPTH = 16
MAX_REPEAT = 256
_MAX_MEMO = 16_384
"""States in remembered steps, so that a text cannot make a pattern fill memory."""
_KEPT = 1024
_MATCHED = -1
_ANY = (1 << 128) - 1


class UnsafePattern(FormatError):
    """A regular expression outside the subset, or too large for it."""

    code = "pcr-policy-pattern"
    remedy = "Rewrite the pattern: no back-references, look-around, flags or inner anchors."


def _mask(characters: str) -> int:
    return sum(1 << ord(one) for one in set(characters))


def _span(first: str, last: str) -> int:
    return (1 << ord(last) + 1) - (1 << ord(first))


_DIGIT = _span("0", "9")
_WORD = _DIGIT | _span("a", "z") | _span("A", "Z") | _mask("_")
_SPACE = _mask(" \t\n\f\r")
_CLASSES = {
    "d": _DIGIT,
    "D": _ANY ^ _DIGIT,
    "w": _WORD,
    "W": _ANY ^ _WORD,
    "s": _SPACE,
    "S": _ANY ^ _SPACE,
    "n": _mask("\n"),
    "t": _mask("\t"),
}
_REPEAT = re.compile(r"\{(\d{1,4})(?:(,)(\d{0,4}))?\}")


@dataclass(frozen=True, slots=True)
class _Chars:
    mask: int


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    least: int
    most: int | None


_Node = _Chars | _Sequence | _Choice | _Repeat


@dataclass(frozen=True, slots=True)
class Anchored:
    """A pattern without its outer anchors; ``changed`` says that it had not both of them."""

    source: str
    changed: bool


def anchor(source: str) -> Anchored:
    """What of ``source`` has to match the whole text."""
    inner = source.removeprefix("^")
    opened = inner != source
    closed = inner.endswith("$") and (len(inner) - len(inner[:-1].rstrip("\\"))) % 2 == 1
    inner = inner[:-1] if closed else inner
    return Anchored(inner, changed=not (opened and closed) or "|" in inner)


class Pattern:
    """A compiled pattern. What it has learnt of its automaton is kept, and changes no answer."""

    __slots__ = ("_memo", "_remembered", "_start", "_states")

    def __init__(self, source: str) -> None:
        if len(source) > MAX_PATTERN or not (source.isascii() and source.isprintable()):
            raise UnsafePattern("not a short line of printable ASCII", got=ascii(source[:80]))
        automaton = _Automaton()
        start = automaton.add(_Parser(anchor(source).source).parse(), _MATCHED)
        self._states = tuple(automaton.states)
        self._start = self._closure((start,))
        self._memo: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._remembered = 0

    def matches(self, text: str) -> bool:
        """Whether the pattern matches all of ``text``, which must be ASCII."""
        current = self._start
        for character in text:
            current = self._step(current, character)
            if not current:
                return False
        return _MATCHED in current

    def _step(self, current: frozenset[int], character: str) -> frozenset[int]:
        key = (current, character)
        found = self._memo.get(key)
        if found is None:
            bit = 1 << ord(character)
            moved = [self._states[at] for at in current if at != _MATCHED]
            found = self._closure(tuple(after for mask, after, _ in moved if mask & bit))
            if self._remembered > _MAX_MEMO:
                self._memo.clear()
                self._remembered = 0
            self._memo[key] = found
            self._remembered += 1 + len(current) + len(found)
        return found

    def _closure(self, starts: tuple[int, ...]) -> frozenset[int]:
        """The states that read a character, reached from ``starts`` through forks."""
        waiting, seen = list(starts), set[int]()
        while waiting:
            at = waiting.pop()
            if at in seen:
                continue
            seen.add(at)
            if at != _MATCHED and self._states[at][0] == 0:
                waiting.extend(self._states[at][1:])
        return frozenset(at for at in seen if at == _MATCHED or self._states[at][0])


@lru_cache(maxsize=_KEPT)
def compile_pattern(source: str) -> Pattern:
    """The pattern, ready to match. Raises ``UnsafePattern``."""
    return Pattern(source)


class _Automaton:
    """States ``(mask, next, other)``: mask 0 is a fork, which reads nothing."""

    def __init__(self) -> None:
        self.states: list[tuple[int, int, int]] = []

    def add(self, node: _Node, after: int) -> int:
        """The state at which ``node`` starts, if ``after`` is what follows it."""
        match node:
            case _Chars(mask):
                return self._state(mask, after, after)
            case _Sequence(parts):
                for part in reversed(parts):
                    after = self.add(part, after)
                return after
            case _Choice(options):
                first, *others = [self.add(option, after) for option in options]
                for other in others:
                    first = self._state(0, first, other)
                return first
            case _Repeat(part, least, most):
                return self._repeat(part, least, most, after)

    def _repeat(self, part: _Node, least: int, most: int | None, after: int) -> int:
        if most is None:
            fork = self._state(0, after, after)
            self.states[fork] = (0, self.add(part, fork), after)
            start = fork
        else:
            start = after
            for _ in range(most - least):
                start = self._state(0, self.add(part, start), after)
        for _ in range(least):
            start = self.add(part, start)
        return start

    def _state(self, mask: int, after: int, other: int) -> int:
        if len(self.states) >= MAX_STATES:
            raise UnsafePattern("a pattern has too many states", expected=f"at most {MAX_STATES}")
        self.states.append((mask, after, other))
        return len(self.states) - 1


class _Parser:
    """Recursive descent over one pattern; ``_at`` is the place in it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0

    def parse(self) -> _Node:
        node = self._choice(0)
        if self._at != len(self._source):
            raise self._fault("an unopened group")
        return node

    def _choice(self, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise self._fault("groups too deep")
        options = [self._sequence(depth)]
        while self._take("|"):
            options.append(self._sequence(depth))
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _sequence(self, depth: int) -> _Node:
        parts: list[_Node] = []
        while self._at < len(self._source) and self._source[self._at] not in "|)":
            parts.append(self._repeated(self._atom(depth)))
        return _Sequence(tuple(parts))

    def _atom(self, depth: int) -> _Node:
        character = self._next()
        if character == "(":
            if self._take("?") and not self._take(":"):
                raise self._fault("a group with flags, a name or look-around")
            node = self._choice(depth + 1)
            if not self._take(")"):
                raise self._fault("an unclosed group")
            return node
        if character == "[":
            return _Chars(self._set())
        if character in "^$*+?":
            raise self._fault(f"{character} in this place")
        if character == ".":
            return _Chars(_ANY ^ _mask("\n"))
        return _Chars(self._escaped() if character == "\\" else _mask(character))

    def _repeated(self, node: _Node) -> _Node:
        bounds = self._bounds()
        if bounds is None:
            return node
        self._take("?")
        if self._source[self._at : self._at + 1] in ("*", "+", "?"):
            raise self._fault("a repetition of a repetition")
        return _Repeat(node, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, least, most in (("*", 0, None), ("+", 1, None), ("?", 0, 1)):
            if self._take(sign):
                return least, most
        found = _REPEAT.match(self._source, self._at)
        if found is None:
            return None
        self._at = found.end()
        low = int(found[1])
        high = low if found[2] is None else int(found[3]) if found[3] else None
        if max(low, high or 0) > MAX_REPEAT or (high is not None and high < low):
            raise self._fault("a repetition out of bounds")
        return low, high

    def _set(self) -> int:
        negated, mask, first = self._take("^"), 0, True
        while first or not self._take("]"):
            first = False
            low = self._next()
            part = self._escaped() if low == "\\" else _mask(low)
            if self._source[self._at : self._at + 1] == "-" and self._ahead(1) not in ("]", ""):
                part = self._range(part)
            mask |= part
        mask = _ANY ^ mask if negated else mask
        if not mask:
            raise self._fault("an empty set")
        return mask

    def _range(self, low: int) -> int:
        self._at += 1
        end = self._next()
        high = self._escaped() if end == "\\" else _mask(end)
        if low.bit_count() != 1 or high.bit_count() != 1 or high < low:
            raise self._fault("a range out of order")
        return 2 * high - low

    def _escaped(self) -> int:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character.isalnum():
            raise self._fault(f"the escape \\{character}")
        return _mask(character)

    def _ahead(self, distance: int) -> str:
        return self._source[self._at + distance : self._at + distance + 1]

    def _take(self, character: str) -> bool:
        found = self._ahead(0) == character
        self._at += found
        return found

    def _next(self) -> str:
        if self._at >= len(self._source):
            raise self._fault("an unfinished pattern")
        self._at += 1
        return self._source[self._at - 1]

    def _fault(self, what: str) -> UnsafePattern:
        return UnsafePattern(f"a pattern with {what}", offset=self._at, got=self._source[:80])
