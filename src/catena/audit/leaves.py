"""Single entries and tree hashes of a log, read from its files where they are needed.

Nothing that is read here is believed: an entry counts by its signature and by the root that its
hash leads to, a hash tile by the same root.
"""

from __future__ import annotations

from functools import lru_cache

from catena.audit import merkle, tiles
from catena.audit.entries import Entry
from catena.audit.reader import LogReader
from catena.audit.tiles import TILE_WIDTH, Tile
from catena.audit.tree import TileNodes
from catena.audit.verify import covered_entries, covered_hashes, open_leaf
from catena.keys.signer import PublicKey

_KEPT = 16


class Leaves:
    """The entries of a log of ``size`` entries, and the hashes that prove where they are."""

    def __init__(self, log: LogReader, size: int) -> None:
        self._log = log
        self._size = size
        self._nodes = TileNodes(log, size, covered_hashes)
        self.bundle = lru_cache(_KEPT)(self._read_bundle)

    def leaf(self, index: int) -> bytes:
        """An entry as the log has it. Raises ``TileMissing``, ``BundleMalformed``."""
        return self.bundle(index // TILE_WIDTH)[index % TILE_WIDTH]

    def entry(self, index: int, key: PublicKey) -> Entry:
        """An entry that the log's key signed. Raises ``EntryForged``, ``EntryMalformed`` too."""
        return open_leaf(self.leaf(index), key, index)

    def proof(self, index: int) -> tuple[bytes, ...]:
        """The inclusion proof of an entry. Raises ``TileMissing``, ``TileAltered``."""
        return merkle.inclusion_proof(index, self._size, self._nodes)

    def _read_bundle(self, index: int) -> tuple[bytes, ...]:
        return covered_entries(
            self._log, Tile(None, index, tiles.width_at(None, index, self._size))
        )
