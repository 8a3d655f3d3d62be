"""DER, the one encoding of an ASN.1 value (ITU-T X.690, clauses 8, 10 and 11), read strictly.

===========  ====================================================
identifier   class, constructed bit, tag number below 31 (8.1.2)
length       definite, in the fewest bytes (10.1)
contents     as many bytes
===========  ====================================================

Decoders in use are lenient in different ways, and where two of them differ a certificate has two
meanings. So whoever judges a stranger's certificate walks it first: ``departures`` refuses
whatever has a second reading, and names the two departures that have none, whose bytes vendors
have burnt into chips. Not seen here: a DEFAULT value that is spelled out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from catena.errors import FormatError

INTEGER, BIT_STRING, OCTET_STRING, OBJECT_IDENTIFIER = 0x02, 0x03, 0x04, 0x06
SEQUENCE, SET = 0x30, 0x31
MAX_DEPTH = 24
MAX_ELEMENTS = 8192
MAX_OID = 128
"""Bytes; the longest ones in use have less than half."""

_CONSTRUCTED, _CLASS, _NUMBER = 0x20, 0xC0, 0x1F
_LONG_FORM = 0x80
_MAX_LENGTH_BYTES = 4


class NotDer(FormatError):
    """Bytes that are no DER, in a way that could be read as something else."""

    code = "not-der"
    remedy = "Ask whoever made this certificate for one that is encoded in DER."


class Departure(StrEnum):
    """Where an encoding is not the distinguished one, and still has only one reading."""

    SET_ORDER = "set-order"
    """The elements of a SET OF are not in ascending order (11.6)."""
    INTEGER_PADDING = "integer-padding"
    """An INTEGER has more leading bytes than it needs (8.3.2)."""


@dataclass(frozen=True, slots=True)
class Element:
    """One TLV of ``data``: its identifier byte, and where contents begin and end."""

    tag: int
    start: int
    body: int
    end: int

    @property
    def constructed(self) -> bool:
        """Whether the contents are elements themselves."""
        return bool(self.tag & _CONSTRUCTED)


def element(data: bytes, start: int = 0, end: int | None = None) -> Element:
    """The element that begins at ``start`` and ends at or before ``end``. Raises ``NotDer``."""
    limit = len(data) if end is None else end
    if limit - start < 2:
        raise NotDer("an element is cut off", offset=start)
    tag, first = data[start], data[start + 1]
    if tag & _NUMBER == _NUMBER:
        raise NotDer("a tag number of several bytes", offset=start)
    body, size = _length(data, start + 1, limit, first)
    if size > limit - body:
        raise NotDer(
            "an element runs past the end",
            offset=start,
            expected=f"{size} bytes",
            got=f"{limit - body}",
        )
    return Element(tag, start, body, body + size)


def _length(data: bytes, at: int, limit: int, first: int) -> tuple[int, int]:
    """Where the contents begin, and their size."""
    if first < _LONG_FORM:
        return at + 1, first
    count = first - _LONG_FORM
    if not 1 <= count <= _MAX_LENGTH_BYTES or at + 1 + count > limit:
        raise NotDer("a length that is indefinite, too long or cut off", offset=at)
    size = int.from_bytes(data[at + 1 : at + 1 + count], "big")
    if size < _LONG_FORM or size >> 8 * (count - 1) == 0:
        raise NotDer("a length in more bytes than it needs", offset=at)
    return at + 1 + count, size


def whole(data: bytes) -> Element:
    """The element that is all of ``data``. Raises ``NotDer``."""
    found = element(data)
    if found.end != len(data):
        raise NotDer("bytes behind the element", offset=found.end)
    return found


def children(data: bytes, parent: Element) -> Iterator[Element]:
    """The elements in ``parent``'s contents, in order. Raises ``NotDer``."""
    at = parent.body
    while at < parent.end:
        child = element(data, at, parent.end)
        yield child
        at = child.end


def departures(data: bytes) -> tuple[tuple[Departure, int], ...]:
    """All of ``data`` is one DER element but for these, each with its offset. Raises ``NotDer``."""
    found: list[tuple[Departure, int]] = []
    waiting, seen = [(whole(data), 0)], 0
    while waiting:
        one, depth = waiting.pop()
        seen += 1
        if seen > MAX_ELEMENTS or depth > MAX_DEPTH:
            raise NotDer("too many elements, or too deep", offset=one.start)
        _check_tag(one)
        if one.constructed:
            inner = list(children(data, one))
            if one.tag == SET and not _ascending(data, inner):
                found.append((Departure.SET_ORDER, one.start))
            waiting.extend((child, depth + 1) for child in inner)
        elif _is_padded(data, one):
            found.append((Departure.INTEGER_PADDING, one.start))
    return tuple(sorted(found, key=lambda pair: pair[1]))


def _check_tag(one: Element) -> None:
    """Universal types are constructed exactly if they are SEQUENCE or SET (8.9 to 8.12, 10.2)."""
    if one.tag & _CLASS:
        return
    number = one.tag & _NUMBER
    wanted = number in {SEQUENCE & _NUMBER, SET & _NUMBER}
    if number == 0 or one.constructed != wanted:
        raise NotDer("a type in a form that it does not have", offset=one.start)


def _ascending(data: bytes, elements: list[Element]) -> bool:
    encodings = [data[one.start : one.end] for one in elements]
    return encodings == sorted(encodings)


def _is_padded(data: bytes, one: Element) -> bool:
    """Check the contents of a primitive element; True for a padded INTEGER."""
    body = data[one.body : one.end]
    match one.tag:
        case 0x01 if body not in {b"\x00", b"\xff"}:
            raise NotDer("a BOOLEAN that is neither true nor false", offset=one.start)
        case 0x05 if body:
            raise NotDer("a NULL with contents", offset=one.start)
        case 0x02 | 0x06 if not body:
            raise NotDer("an empty number", offset=one.start)
        case 0x03:
            _check_bits(body, one.start)
        case 0x02:
            return len(body) > 1 and (
                (body[0] == 0 and body[1] < 0x80) or (body[0] == 0xFF and body[1] >= 0x80)
            )
        case _:
            pass
    return False


def _check_bits(body: bytes, at: int) -> None:
    """A BIT STRING says how many bits of its last byte are unused, and those are zero (11.2)."""
    if not body or body[0] > 7 or (len(body) == 1 and body[0]):
        raise NotDer("a BIT STRING without its count of unused bits", offset=at)
    if body[0] and body[-1] & ((1 << body[0]) - 1):
        raise NotDer("a BIT STRING with unused bits that are set", offset=at)


def dotted(body: bytes) -> str:
    """The contents of an OBJECT IDENTIFIER in dotted form (8.19). Raises ``NotDer``."""
    if len(body) > MAX_OID:
        raise NotDer(
            "an object identifier that is too long",
            expected=f"at most {MAX_OID} bytes",
            got=f"{len(body)}",
        )
    arcs, value = [], 0
    for at, byte in enumerate(body):
        if value == 0 and byte == _LONG_FORM:
            raise NotDer("an object identifier with a padded arc", offset=at)
        value = value << 7 | byte & 0x7F
        if byte < _LONG_FORM:
            arcs.append(value)
            value = 0
    if not arcs or body[-1] >= _LONG_FORM:
        raise NotDer("an object identifier that is cut off", offset=len(body))
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))
