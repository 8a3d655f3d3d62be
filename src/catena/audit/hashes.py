"""Hashes of a log's subtrees from its tiles, for proofs: any node costs one tile, at most.

What a tile says is believed by nobody: a proof made of it leads to the signed root, or it does not.
"""

from __future__ import annotations

from functools import lru_cache

from catena.audit import merkle, tiles
from catena.audit.folder import MAX_CHECKPOINT, LogMissing
from catena.audit.merkle import HASH_SIZE, Frontier, Node
from catena.audit.reader import LogReader
from catena.audit.tiles import CHECKPOINT, FULL_TILE, MAX_BUNDLE, TILE_LEVELS, TILE_WIDTH, Tile
from catena.errors import FormatError, LogInconsistent

_KEPT_TILES = 64


class TileUnavailable(LogInconsistent):
    """A tile that the log's checkpoint covers cannot be had, or is no tile."""

    code = "tile-unavailable"
    remedy = (
        "Try again, or another copy of the log; a log that keeps a tile back is not to be trusted."
    )


def read_checkpoint(log: LogReader) -> bytes:
    """The log's newest checkpoint. Raises ``LogMissing``."""
    content = log.read(CHECKPOINT, MAX_CHECKPOINT)
    if content is None or len(content) > MAX_CHECKPOINT:
        raise LogMissing("there is no checkpoint here")
    return content


class TileHashes:
    """The nodes of the tree of ``size`` entries, in a log that has ``grown`` to as many by now.

    A log keeps the partial tiles of its newest tree only, so those are what is read.
    """

    def __init__(self, log: LogReader, size: int, grown: int | None = None) -> None:
        self._log = log
        self._size = size
        self._grown = size if grown is None else grown
        self._tile = lru_cache(_KEPT_TILES)(self._read)

    def __call__(self, node: Node) -> bytes:
        """The hash of a perfect subtree of the tree. Raises ``TileUnavailable``."""
        level, index = node
        tile_level, height = divmod(level, TILE_LEVELS)
        first = index << height
        row = self._tile(tile_level, first // TILE_WIDTH)
        start = first % TILE_WIDTH * HASH_SIZE
        hashes = row[start : start + (HASH_SIZE << height)]
        if len(hashes) != HASH_SIZE << height:
            raise TileUnavailable("tile has too few hashes")
        return merkle.subtree_root(
            [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)]
        )

    def frontier(self) -> Frontier:
        """The tree's right edge."""
        levels = [level for level in range(self._size.bit_length()) if self._size >> level & 1]
        return Frontier(
            self._size,
            tuple(self((level, (self._size >> level) - 1)) for level in reversed(levels)),
        )

    def leaves(self, index: int) -> bytes:
        """The leaf hashes of one tile, joined."""
        return self._tile(0, index)

    def _read(self, level: int, index: int) -> bytes:
        tile = Tile(level, index, tiles.width_at(level, index, self._grown))
        content = read_tile(self._log, tile, FULL_TILE)
        width = tiles.width_at(level, index, self._size)
        if len(content) % HASH_SIZE or len(content) < width * HASH_SIZE:
            raise TileUnavailable("tile has a wrong size", got=tile.path)
        return content[: width * HASH_SIZE]


def read_bundle(log: LogReader, index: int, size: int) -> tuple[bytes, ...]:
    """The entries of one bundle of a tree of ``size``. Raises ``TileUnavailable``."""
    width = tiles.width_at(None, index, size)
    for tile in (Tile(None, index, width), Tile(None, index)):
        content = log.read(tile.path, MAX_BUNDLE)
        if content is not None:
            try:
                return tiles.parse_bundle(content, tile.width)[:width]
            except FormatError as error:
                raise TileUnavailable(f"no bundle of entries: {error}", got=tile.path) from error
    raise TileUnavailable("entries are missing", got=Tile(None, index, width).path)


def read_tile(log: LogReader, tile: Tile, limit: int) -> bytes:
    """A tile, or the full one that a partial one made way for (tlog-tiles, "Partial Tiles")."""
    for candidate in (tile, Tile(tile.level, tile.index)):
        content = log.read(candidate.path, limit)
        if content is not None and len(content) <= limit:
            return content
    raise TileUnavailable("hashes are missing", got=tile.path)
