"""A bounded cursor over bytes: every binary parser of this floor reads through it.

It never reads past the end, never allocates from an unchecked length, and every failure is
a ``FormatError`` that carries the offset at which reading stopped.
"""

from __future__ import annotations

from typing import Literal

from catena.errors import FormatError

ByteOrder = Literal["little", "big"]


class Reader:
    """Reads ``data`` from ``start`` to ``end`` in one byte order; ``offset`` is absolute."""

    __slots__ = ("_data", "_end", "_order", "offset")

    def __init__(
        self, data: bytes, *, order: ByteOrder, start: int = 0, end: int | None = None
    ) -> None:
        self._data = data
        self._order = order
        self._end = len(data) if end is None else end
        self.offset = start

    @property
    def remaining(self) -> int:
        """Bytes left to read."""
        return self._end - self.offset

    def take(self, size: int, what: str) -> bytes:
        """The next ``size`` bytes, or ``FormatError`` if fewer are left."""
        start = self.offset
        end = start + size
        if size < 0 or end > self._end:
            raise FormatError(
                f"{what} runs past the end",
                offset=start,
                expected=f"{size} bytes",
                got=f"{self.remaining}",
            )
        self.offset = end
        return self._data[start:end]

    def uint(self, size: int, what: str) -> int:
        """An unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size, what), self._order)

    def sized(self, length_size: int, limit: int, what: str) -> bytes:
        """Bytes behind their own length field; a length above ``limit`` is refused."""
        start = self.offset
        length = self.uint(length_size, f"{what} length")
        if length > limit:
            raise FormatError(
                f"{what} is too long", offset=start, expected=f"at most {limit}", got=f"{length}"
            )
        return self.take(length, what)

    def done(self, what: str) -> None:
        """Refuse trailing bytes."""
        if self.remaining:
            raise FormatError(
                f"{what} has trailing bytes",
                offset=self.offset,
                expected="nothing more",
                got=f"{self.remaining} bytes",
            )
