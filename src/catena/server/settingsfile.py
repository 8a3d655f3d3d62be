"""A file of flat TOML settings, read strictly: everything that is wrong with it, and where.

Values are not shown for settings that may hold a password.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from enum import Enum, EnumMeta
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

import msgspec

from catena.server import tomlplace
from catena.server.tomlplace import START, Place, Setting

S = TypeVar("S", bound=msgspec.Struct)

_UNSHOWN = frozenset({"database"})
"""A URL may hold a password, although the manual says where it belongs."""
_MAX_SHOWN = 80
_MISMATCH = re.compile(
    r"(?:Expected (?P<expected>.*?))?(?:, got (?P<got>[^,]*?))?(?: - at `\$(?P<at>.*)`)?"
)
_ELEMENT = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with a file of settings."""

    place: Place
    key: str | None
    message: str
    expected: str | None = None
    got: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class SettingsFile(Generic[S]):
    """What was read: the settings, or None and why not. ``places`` finds keys of a text that parses."""

    settings: S | None
    faults: tuple[Fault, ...]
    places: dict[str, Setting]

    def place(self, key: str, element: int | None = None) -> Place:
        """Where a setting's value is; the file's beginning for one that has its default."""
        setting = self.places.get(key)
        if setting is None:
            return START
        if element is not None and element < len(setting.elements):
            return setting.elements[element]
        return setting.value


def read(text: str, kind: type[S]) -> SettingsFile[S]:
    """Read settings of a kind; nothing is raised."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, place = tomlplace.syntax_fault(text, error)
        return SettingsFile(None, (Fault(place=place, key=None, message=message),), {})
    places = tomlplace.find(text)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    faults = [_unknown(key, places, fields) for key in values if key not in fields]
    converted = {}
    for name, field in fields.items():
        if name not in values:
            if field.required:
                faults.append(Fault(place=START, key=name, message=f"`{name}` is missing"))
            continue
        try:
            converted[name] = msgspec.convert(values[name], field.type)
        except msgspec.ValidationError as error:
            faults.append(_wrong(name, field.type, values[name], str(error), places[name]))
    faults.sort(key=lambda fault: fault.place)
    settings = None if faults else kind(**converted)
    return SettingsFile(settings, tuple(faults), places)


def _unknown(key: str, places: dict[str, Setting], fields: dict[str, Any]) -> Fault:
    near = difflib.get_close_matches(key, fields, 1)
    remedy = f"Did you mean `{near[0]}`?" if near else None
    message = f"`{ascii(key)[1:-1][:_MAX_SHOWN]}` is no setting"
    return Fault(place=places[key].key, key=key, message=message, remedy=remedy)


def _wrong(name: str, kind: Any, value: Any, complaint: str, setting: Setting) -> Fault:  # noqa: ANN401 - any type, any TOML value
    """One setting that its type refuses, with the words that msgspec has for it."""
    found = _MISMATCH.fullmatch(complaint)
    expected, got, at = found.groups() if found else (None, None, None)
    place, element = setting.value, _ELEMENT.match(at or "")
    if element is not None:
        number = int(element[1])
        place, value = setting.elements[number], value[number]
    if got is None and name not in _UNSHOWN:
        got = ascii(value)[:_MAX_SHOWN]
    choices = _choices(kind)
    if expected is None and choices:
        expected = f"one of {choices}"
    message = f"`{name}{element[0] if element else ''}` has a value that it cannot have"
    return Fault(place=place, key=name, message=message, expected=_plain(expected), got=_plain(got))


def _choices(kind: Any) -> str:  # noqa: ANN401 - any type
    if isinstance(kind, EnumMeta):
        members: dict[str, Enum] = dict(kind.__members__)
        return ", ".join(str(one.value) for one in members.values())
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    return ""


def _plain(text: str | None) -> str | None:
    return None if text is None else text.replace("`", "")
