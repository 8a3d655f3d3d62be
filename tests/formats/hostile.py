"""Feeding parsers bytes they should refuse: nothing but a ``FormatError`` may come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from catena.errors import FormatError


def fault_offset(parse: Callable[[bytes], object], wire: bytes) -> int | None:
    """Where ``parse`` found ``wire`` malformed, or None if it accepted it."""
    try:
        parse(wire)
    except FormatError as refused:
        return refused.offset
    return None


def refuses_cleanly(parse: Callable[[bytes], object], wire: bytes) -> bool:
    """True if ``parse`` accepts ``wire`` or refuses it with an offset that lies inside it."""
    offset = fault_offset(parse, wire)
    return offset is None or 0 <= offset <= len(wire)


def bit_flips(wire: bytes, step: int = 1) -> Iterator[bytes]:
    """``wire`` with one bit flipped, for every ``step``-th bit."""
    for bit in range(0, len(wire) * 8, step):
        flipped = bytearray(wire)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)
