"""The part of CBOR (RFC 8949) that COSE signatures need, strict and bounded.

======  ==========================  ===================
major   what                        here
======  ==========================  ===================
0, 1    integers                    ``int``
2       byte string                 ``bytes``
3       text string (UTF-8)         ``str``
4       array                       ``tuple``
5       map                         ``dict`` (keys: integers and texts)
6       tag                         ``Tag``
7       false, true, null           ``bool``, ``None``
======  ==========================  ===================

Lengths are definite and every number has its shortest form (section 4.2.1), except that the
order of a map's keys is free: what is signed is kept as the bytes it came in. Duplicate keys,
floating point numbers and other simple values are refused. ``encode`` writes keys in the
bytewise order of their encodings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from catena.errors import FormatError
from catena.formats.reader import Reader

MAX_INPUT = 4 * 1024 * 1024
MAX_DEPTH = 8
MAX_ITEMS = 4096
"""Of a whole document: what it may hold, nested or not."""

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_SIMPLE_VALUES: dict[int, bool | None] = {20: False, 21: True, 22: None}
_DIRECT = 24
"""Arguments below this stand in the first byte itself; 24 to 27 say how many bytes follow."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A tagged value: ``number`` says how ``value`` is meant."""

    number: int
    value: Value


Value: TypeAlias = "int | bytes | str | bool | Tag | tuple[Value, ...] | dict[int | str, Value] | None"  # fmt: skip


def parse(data: bytes) -> Value:
    """Read exactly one value. Raises ``FormatError`` with the offset of the item at fault."""
    if len(data) > MAX_INPUT:
        raise FormatError("CBOR is too large", expected=f"at most {MAX_INPUT}", got=f"{len(data)}")
    decoder = _Decoder(data)
    value = decoder.value(0)
    decoder.reader.done("CBOR")
    return value


def encode(value: Value) -> bytes:
    """The value in core deterministic encoding; ``parse`` gives it back."""
    match value:
        case bool() | None:
            return _head(_SIMPLE, next(n for n, v in _SIMPLE_VALUES.items() if v is value))
        case int():
            return _head(_UINT, value) if value >= 0 else _head(_NINT, -1 - value)
        case bytes():
            return _head(_BYTES, len(value)) + value
        case str():
            text = value.encode()
            return _head(_TEXT, len(text)) + text
        case tuple():
            return _head(_ARRAY, len(value)) + b"".join(map(encode, value))
        case dict():
            pairs = sorted((encode(key), encode(one)) for key, one in value.items())
            return _head(_MAP, len(value)) + b"".join(key + one for key, one in pairs)
        case Tag():
            return _head(_TAG, value.number) + encode(value.value)


def _head(major: int, argument: int) -> bytes:
    if argument < _DIRECT:
        return bytes((major << 5 | argument,))
    width = next(n for n in range(4) if argument < 1 << (8 << n))
    return bytes((major << 5 | _DIRECT + width,)) + argument.to_bytes(1 << width, "big")


class _Decoder:
    """One document: where it is read, and how many items it may still hold."""

    __slots__ = ("items", "reader")

    def __init__(self, data: bytes) -> None:
        self.reader = Reader(data, order="big")
        self.items = MAX_ITEMS

    def value(self, depth: int) -> Value:
        offset = self.reader.offset
        if depth > MAX_DEPTH:
            raise FormatError("CBOR is nested too deep", offset=offset, expected=f"{MAX_DEPTH}")
        major, argument = self._argument()
        match major:
            case 0:
                return argument
            case 1:
                return -1 - argument
            case 2:
                return self.reader.take(argument, "CBOR byte string")
            case 3:
                return _text(self.reader.take(argument, "CBOR text"), offset)
            case 4:
                self._spend(argument, offset)
                return tuple(self.value(depth + 1) for _ in range(argument))
            case 5:
                self._spend(2 * argument, offset)
                return self._map(argument, depth + 1)
            case 6:
                return Tag(argument, self.value(depth + 1))
            case _:
                return _simple(argument, offset)

    def _argument(self) -> tuple[int, int]:
        offset = self.reader.offset
        first = self.reader.uint(1, "CBOR item")
        major, short = first >> 5, first & 31
        if short < _DIRECT:
            return major, short
        width = short - _DIRECT
        if width > 3 or major == _SIMPLE:
            raise FormatError("CBOR item of a kind that is not used", offset=offset, got=f"{first:#04x}")  # fmt: skip
        argument = self.reader.uint(1 << width, "CBOR number")
        least = 1 << (8 << (width - 1)) if width else _DIRECT
        if argument < least:
            raise FormatError("CBOR number is not in its shortest form", offset=offset)
        return major, argument

    def _spend(self, count: int, offset: int) -> None:
        self.items -= count
        if self.items < 0:
            raise FormatError("CBOR has too many items", offset=offset, expected=f"{MAX_ITEMS}")

    def _map(self, count: int, depth: int) -> dict[int | str, Value]:
        found: dict[int | str, Value] = {}
        for _ in range(count):
            offset = self.reader.offset
            key = self.value(depth)
            if isinstance(key, bool) or not isinstance(key, int | str):
                raise FormatError("CBOR map key is neither number nor text", offset=offset)
            if key in found:
                raise FormatError("CBOR map has a key twice", offset=offset, got=ascii(key)[:80])
            found[key] = self.value(depth)
        return found


def _text(data: bytes, offset: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormatError("CBOR text is not UTF-8", offset=offset) from error


def _simple(argument: int, offset: int) -> bool | None:
    if argument not in _SIMPLE_VALUES:
        raise FormatError("CBOR simple value is not used", offset=offset, got=f"{argument}")
    return _SIMPLE_VALUES[argument]
