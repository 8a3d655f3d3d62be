"""What reading a log needs of the place it lies in: a folder, a database, a bucket, a URL.

And how its tiles are read through that, whoever reads them.
"""

from __future__ import annotations

from typing import Protocol

from catena.audit.merkle import HASH_SIZE
from catena.audit.tiles import FULL_TILE, MAX_BUNDLE, Tile, parse_bundle
from catena.errors import FormatError, Unavailable


class LogUnreadable(Unavailable):
    """A file of the log cannot be read."""

    code = "log-unreadable"
    remedy = "Check the log's folder and its permissions, or the service that has the log's files."


class LogReader(Protocol):
    """Reads a log's files by their path below its root (``audit.tiles``)."""

    def read(self, name: str, limit: int) -> bytes | None:
        """The content of a file, None if it is not there; at most ``limit`` + 1 bytes of it.

        Whoever asks refuses what is longer than ``limit``. Raises ``LogUnreadable``.
        """
        ...


class TileAbsent(FormatError):
    """A tile that is not there."""

    code = "tile-absent"


def read_tile(log: LogReader, tile: Tile) -> tuple[bytes, int]:
    """A tile's content and width; of the full tile where the partial one made way for it.

    That happens while the log grows under its reader (tlog-tiles, "Partial Tiles"). Raises
    ``TileAbsent``.
    """
    limit = MAX_BUNDLE if tile.level is None else FULL_TILE
    for candidate in (tile, Tile(tile.level, tile.index)):
        content = log.read(candidate.path, limit)
        if content is not None:
            return content, candidate.width
    raise TileAbsent(f"{tile.path} is missing")


def read_hashes(log: LogReader, tile: Tile) -> bytes:
    """The hashes of a tile, joined. Raises ``FormatError``, and ``TileAbsent`` of its kind."""
    content, width = read_tile(log, tile)
    if len(content) != width * HASH_SIZE:
        raise FormatError(
            f"{tile.path} has a wrong size",
            expected=f"{width * HASH_SIZE} bytes",
            got=f"{len(content)}" if len(content) <= FULL_TILE else "more",
        )
    return content[: tile.width * HASH_SIZE]


def read_entries(log: LogReader, tile: Tile) -> tuple[bytes, ...]:
    """The entries of a bundle. Raises as ``read_hashes``."""
    content, width = read_tile(log, tile)
    return parse_bundle(content, width)[: tile.width]
