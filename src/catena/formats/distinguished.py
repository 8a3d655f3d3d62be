"""Distinguished names (RFC 5280, 4.1.2.4), read attribute by attribute.

::

    Name ::= SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }

Vendors write several attributes into one SET and choose string types freely; what an attribute
says is the same. Comparing names is comparing their bytes, elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from catena.errors import FormatError
from catena.formats.der import OBJECT_IDENTIFIER, SEQUENCE, SET, Element, NotDer, children, dotted
from catena.formats.der import whole as whole_element

COMMON_NAME = "2.5.4.3"
ORGANISATION = "2.5.4.10"
UNIT = "2.5.4.11"
MAX_TEXT = 200
MAX_ATTRIBUTES = 64

_SHORT = {
    COMMON_NAME: "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    ORGANISATION: "O",
    UNIT: "OU",
}
_ENCODINGS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}
"""By the tag: UTF8String, PrintableString, TeletexString, IA5String, BMPString."""


class BadName(FormatError):
    """A distinguished name with a value that is no string, or too many attributes."""

    code = "bad-distinguished-name"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: dotted type, and its text as it is written, not yet fit for a terminal."""

    type: str
    text: str


def attributes(name: bytes) -> tuple[Attribute, ...]:
    """All attributes of a Name, in order. Raises ``NotDer`` or ``BadName``."""
    found: list[Attribute] = []
    for attribute in _pairs(name, whole_element(name)):
        if len(found) == MAX_ATTRIBUTES:
            raise BadName("a name has too many attributes", offset=attribute.start)
        found.append(_attribute(name, attribute))
    return tuple(found)


def text(name: tuple[Attribute, ...]) -> str:
    """A name for people after RFC 4514, last attribute first, as one bounded line."""
    parts = (f"{_SHORT.get(one.type, one.type)}={one.text}" for one in reversed(name))
    return printable(",".join(parts))


def first(name: tuple[Attribute, ...], kind: str) -> str:
    """The text of the first attribute of this type, fit for a terminal, or nothing."""
    return next((printable(one.text) for one in name if one.type == kind), "")


def printable(value: str, limit: int = MAX_TEXT) -> str:
    """One bounded line of printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in value[:limit])


def _pairs(name: bytes, top: Element) -> Iterator[Element]:
    _expect(top, SEQUENCE)
    for several in children(name, top):
        _expect(several, SET)
        yield from children(name, several)


def _attribute(name: bytes, pair: Element) -> Attribute:
    _expect(pair, SEQUENCE)
    parts = list(children(name, pair))
    if len(parts) != 2:
        raise BadName("an attribute is no type and value", offset=pair.start)
    kind, value = parts
    _expect(kind, OBJECT_IDENTIFIER)
    return Attribute(dotted(name[kind.body : kind.end]), _string(name, value))


def _string(name: bytes, value: Element) -> str:
    encoding = _ENCODINGS.get(value.tag)
    if encoding is None:
        raise BadName("an attribute is no string", offset=value.start, got=f"{value.tag:#04x}")
    try:
        return name[value.body : value.end].decode(encoding)
    except UnicodeDecodeError as error:
        raise BadName("an attribute's string cannot be decoded", offset=value.start) from error


def _expect(found: Element, tag: int) -> None:
    if found.tag != tag:
        raise NotDer(
            "not a name", offset=found.start, expected=f"{tag:#04x}", got=f"{found.tag:#04x}"
        )
