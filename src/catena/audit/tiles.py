"""Where a log's hashes and entries lie in its folder (C2SP tlog-tiles v1.0.0).

=================================  ==============================================
``checkpoint``                      the signed tree head
``tile/<L>/<N>[.p/<W>]``            256 (or W) hashes of level ``8 * L``, joined
``tile/entries/<N>[.p/<W>]``        256 (or W) entries, each behind a uint16 length
=================================  ==============================================

``<N>`` is written in groups of three digits, all but the last behind an ``x``:
``x001/x234/067``. Pure: this module computes names and bytes and opens no file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from catena.errors import FormatError

TILE_WIDTH = 256
TILE_LEVELS = 8
"""A tile spans eight levels of the tree: 2**8 hashes wide."""
MAX_ENTRY = 0xFFFF
ENTRIES = "entries"
CHECKPOINT = "checkpoint"
FULL_TILE = TILE_WIDTH * 32
"""Bytes of a full hash tile."""
MAX_BUNDLE = TILE_WIDTH * (2 + MAX_ENTRY)

_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """One tile: ``level`` is the tile level, or None for a bundle of entries."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def partial(self) -> bool:
        """Whether it is not full."""
        return self.width < TILE_WIDTH

    @property
    def folder(self) -> str:
        """Where the partial versions of this tile lie."""
        return f"{self._stem()}.p"

    @property
    def path(self) -> str:
        """Its path below the log's folder."""
        return f"{self.folder}/{self.width}" if self.partial else self._stem()

    def _stem(self) -> str:
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03d}")
            rest //= 1000
        return f"tile/{ENTRIES if self.level is None else self.level}/{'/'.join(reversed(groups))}"


def parse_path(path: str) -> Tile:
    """The tile that has this path. Raises ``FormatError`` for any other file."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise FormatError("not the path of a tile")
    tile = Tile(
        level=None if match["level"] == ENTRIES else int(match["level"]),
        index=int(match["index"].replace("x", "").replace("/", "")),
        width=int(match["width"] or TILE_WIDTH),
    )
    if tile.path != path:
        raise FormatError("not the one spelling of a tile's path", expected=tile.path)
    return tile


def width_at(level: int | None, index: int, size: int) -> int:
    """How many hashes or entries of this tile a tree of ``size`` fills; 0 if it has none."""
    count = size >> (TILE_LEVELS * (level or 0))
    return max(0, min(TILE_WIDTH, count - index * TILE_WIDTH))


def levels(size: int) -> int:
    """How many tile levels a tree of ``size`` has."""
    return max(1, -(-size.bit_length() // TILE_LEVELS)) if size else 0


def is_beyond(path: str, size: int) -> bool:
    """Whether a file below ``tile/`` is no part of a tree of ``size``, nor was of a smaller one."""
    try:
        tile = parse_path(path)
    except FormatError:
        return True
    return tile.width > width_at(tile.level, tile.index, size)


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries behind their lengths. Each is at most ``MAX_ENTRY`` bytes."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_bundle(data: bytes, width: int) -> tuple[bytes, ...]:
    """The ``width`` entries of a bundle. Raises ``FormatError``."""
    entries, end, total = [], 0, len(data)
    for number in range(width):
        start = end + 2
        end = start + int.from_bytes(data[end:start], "big")
        if end > total or start > total:
            raise FormatError(f"entry {number} ends behind the data")
        entries.append(data[start:end])
    if end != total:
        raise FormatError("entry bundle has trailing bytes", got=f"{total - end} bytes")
    return tuple(entries)
