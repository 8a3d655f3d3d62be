"""Where in a TOML text its keys and values stand (TOML 1.0.0).

``tomllib`` says what a text holds and not where. This finder goes over a text that ``tomllib`` has
accepted, so it judges nothing: it only tells keys of the top level, their values and the elements of
their arrays. A table is found at its header, and what stands in it belongs to it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:""?(?!"))?'  # multi-line basic; up to two quotes may end it
    r"|'''(?:.)*?'''(?:''?(?!'))?"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^\s,#\[\]{}]+(?: [0-9:.Z+-]+)?")
"""A number, a boolean or a time; a date and its time may have a space between them."""
_SYNTAX = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


class Place(NamedTuple):
    """A line and a column, both from 1; columns count characters."""

    line: int
    column: int

    def __str__(self) -> str:
        """As compilers write it."""
        return f"{self.line}:{self.column}"


class Setting(NamedTuple):
    """Where one key of the top level is, where its value begins, and each element if it is an array."""

    key: Place
    value: Place
    elements: tuple[Place, ...] = ()


START = Place(1, 1)


def find(text: str) -> dict[str, Setting]:
    """The places of all keys of the top level. ``text`` must be TOML that ``tomllib`` accepts."""
    finder = _Finder(text)
    found: dict[str, Setting] = {}
    for key, setting in finder.settings():
        found.setdefault(key, setting)
    return found


def with_string(text: str, key: str, value: str) -> str:
    """The text with another string as the value of a key of the top level; all else stays.

    A value that is no string stays, too: hold the outcome against what you want.
    """
    written = msgspec.json.encode(value).decode()  # a JSON string is a TOML string
    places = find(text)
    if key not in places:
        first = min((_offset(text, one.key) for one in places.values()), default=0)
        return f"{text[:first]}{key} = {written}\n{text[first:]}"
    start = _offset(text, places[key].value)
    old = _STRING.match(text, start)
    return text if old is None else text[:start] + written + text[old.end() :]


def with_element(text: str, key: str, value: str) -> str:
    """The text with one more string, the first, in an array of the top level; all else stays.

    A value that is no array breaks: hold the outcome against what you want.
    """
    written = msgspec.json.encode(value).decode()
    places = find(text)
    if key not in places:
        first = min((_offset(text, one.key) for one in places.values()), default=0)
        return f"{text[:first]}{key} = [{written}]\n{text[first:]}"
    start, more = _offset(text, places[key].value) + 1, places[key].elements
    return f"{text[:start]}{written}{', ' if more else ''}{text[start:]}"


def syntax_fault(text: str, error: tomllib.TOMLDecodeError) -> tuple[str, Place]:
    """What ``tomllib`` complains of, and where."""
    matched = _SYNTAX.match(str(error))
    if matched is None:
        return str(error), START
    message, line, column = matched.groups()
    if line is None:
        return message, _place(text, len(text))
    return message, Place(int(line), int(column))


def _place(text: str, offset: int) -> Place:
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def _offset(text: str, place: Place) -> int:
    lines = text.split("\n")  # the lines that ``_place`` counts
    return sum(len(line) + 1 for line in lines[: place.line - 1]) + place.column - 1


class _Finder:
    """One pass over a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def settings(self) -> Iterator[tuple[str, Setting]]:
        in_table = False
        while self._skip(_GAP) < len(self._text):
            begin = self._at
            if self._text[begin] == "[":
                in_table = True
                self._at += 2 if self._text.startswith("[[", begin) else 1
                self._skip(_BLANK)
                yield self._key(), Setting(_place(self._text, begin), _place(self._text, begin))
                self._at = self._text.find("\n", self._at) % (len(self._text) + 1)
                continue
            key = self._key()
            self._at = self._text.index("=", self._at) + 1
            value = self._skip(_BLANK)
            elements = tuple(self._value())
            if not in_table:
                yield (
                    key,
                    Setting(_place(self._text, begin), _place(self._text, value), elements),
                )

    def _skip(self, pattern: re.Pattern[str]) -> int:
        matched = pattern.match(self._text, self._at)
        self._at = matched.end() if matched else self._at
        return self._at

    def _key(self) -> str:
        """The first part of a key, which may be dotted; the whole of it is passed over."""
        parts = []
        while True:
            self._skip(_BLANK)
            begin = self._at
            if self._text[begin] in "\"'":
                self._skip(_STRING)
                quoted = tomllib.loads(f"value = {self._text[begin : self._at]}")
                parts.append(str(quoted["value"]))
            else:
                self._skip(_BARE)
                parts.append(self._text[begin : self._at])
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return parts[0]
            self._at += 1

    def _value(self) -> Iterator[Place]:
        """Pass over a value; the places of its elements if it is an array."""
        if self._text[self._at] != "[":
            self._pass()
            return
        self._at += 1
        while self._text[self._skip(_GAP)] != "]":
            yield _place(self._text, self._at)
            self._pass()
            self._skip(_GAP)
            if self._text[self._at] == ",":
                self._at += 1
        self._at += 1

    def _pass(self) -> None:
        """Pass over one value of any kind, whatever is nested in it."""
        depth = 0
        while True:
            sign = self._text[self._at]
            if sign in "[{":
                depth += 1
                self._at += 1
            elif sign in "]}":
                depth -= 1
                self._at += 1
            elif sign in ",=":
                self._at += 1
            elif sign in "\"'":
                self._skip(_STRING)
            else:
                self._skip(_PLAIN)
            if depth == 0:
                return
            self._skip(_GAP)
