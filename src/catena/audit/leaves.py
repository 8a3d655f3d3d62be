"""Single entries and tree hashes of a log, read from its files where they are needed.

Nothing that is read here is believed: an entry counts by its signature and by the root that its
hash leads to, a hash tile by the same root.
"""

from __future__ import annotations

from functools import lru_cache

from catena.audit import merkle, tiles
from catena.audit.entries import Entry
from catena.audit.merkle import HASH_SIZE, Node
from catena.audit.reader import LogReader
from catena.audit.tiles import FULL_TILE, MAX_BUNDLE, TILE_LEVELS, TILE_WIDTH, Tile
from catena.audit.verify import BundleMalformed, TileAltered, TileMissing, open_leaf
from catena.errors import FormatError
from catena.keys.signer import PublicKey

_KEPT = 16


class Leaves:
    """The entries of a log of ``size`` entries, and the hashes that prove where they are."""

    def __init__(self, log: LogReader, size: int) -> None:
        self._log = log
        self._size = size
        self.bundle = lru_cache(_KEPT)(self._read_bundle)
        self._row = lru_cache(_KEPT)(self._read_row)

    def leaf(self, index: int) -> bytes:
        """An entry as the log has it. Raises ``TileMissing``, ``BundleMalformed``."""
        return self.bundle(index // TILE_WIDTH)[index % TILE_WIDTH]

    def entry(self, index: int, key: PublicKey) -> Entry:
        """An entry that the log's key signed. Raises ``EntryForged``, ``EntryMalformed`` too."""
        return open_leaf(self.leaf(index), key, index)

    def proof(self, index: int) -> tuple[bytes, ...]:
        """The inclusion proof of an entry. Raises ``TileMissing``, ``TileAltered``."""
        return merkle.inclusion_proof(index, self._size, self.node)

    def node(self, node: Node) -> bytes:
        """The hash of a perfect subtree, as the tiles say."""
        level, index = node
        tile_level, height = divmod(level, TILE_LEVELS)
        first = index << height
        start = first % TILE_WIDTH * HASH_SIZE
        row = self._row(tile_level, first // TILE_WIDTH)[start : start + (HASH_SIZE << height)]
        return merkle.subtree_root(
            [row[at : at + HASH_SIZE] for at in range(0, len(row), HASH_SIZE)]
        )

    def _read_bundle(self, index: int) -> tuple[bytes, ...]:
        tile = Tile(None, index, tiles.width_at(None, index, self._size))
        content, width = self._read(tile, MAX_BUNDLE)
        try:
            return tiles.parse_bundle(content, width)[: tile.width]
        except FormatError as error:
            raise BundleMalformed(f"no bundle of entries: {error}", file=tile.path) from error

    def _read_row(self, level: int, index: int) -> bytes:
        tile = Tile(level, index, tiles.width_at(level, index, self._size))
        content, width = self._read(tile, FULL_TILE)
        if len(content) != width * HASH_SIZE:
            raise TileAltered("the tile has a wrong size", file=tile.path)
        return content[: tile.width * HASH_SIZE]

    def _read(self, tile: Tile, limit: int) -> tuple[bytes, int]:
        """A tile, or the full one that it made way for (tlog-tiles, "Partial Tiles")."""
        for candidate in (tile, Tile(tile.level, tile.index)):
            content = self._log.read(candidate.path, limit)
            if content is not None:
                return content, candidate.width
        raise TileMissing("the checkpoint covers this file, and it is missing", file=tile.path)
