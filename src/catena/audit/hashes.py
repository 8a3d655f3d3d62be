"""Hashes of a log's subtrees from its tiles, for proofs: any node costs one tile, at most.

What a tile says is believed by nobody: a proof made of it leads to the signed root, or it does not.
"""

from __future__ import annotations

from catena.audit import tiles
from catena.audit.folder import MAX_CHECKPOINT, LogFolder, LogMissing
from catena.audit.merkle import Frontier
from catena.audit.reader import LogReader, read_entries, read_hashes
from catena.audit.tiles import CHECKPOINT, Tile
from catena.audit.tree import TileNodes
from catena.errors import FormatError, LogInconsistent


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
        where = str(log.path) if isinstance(log, LogFolder) else None
        raise LogMissing("there is no checkpoint here", got=where)
    return content


class TileHashes(TileNodes):
    """The nodes of the tree of ``size`` entries, in a log that has ``grown`` to as many by now.

    A log keeps the partial tiles of its newest tree only, so those are what is read. Raises
    ``TileUnavailable``.
    """

    def __init__(self, log: LogReader, size: int, grown: int | None = None) -> None:
        super().__init__(log, size if grown is None else grown, _read_row)
        self._tree = size

    def frontier(self) -> Frontier:
        """The tree's right edge."""
        levels = [level for level in range(self._tree.bit_length()) if self._tree >> level & 1]
        return Frontier(
            self._tree,
            tuple(self((level, (self._tree >> level) - 1)) for level in reversed(levels)),
        )

    def leaves(self, index: int) -> bytes:
        """The leaf hashes of one tile, joined."""
        return _read_row(self._reader, Tile(0, index, tiles.width_at(0, index, self._tree)))


def _read_row(log: LogReader, tile: Tile) -> bytes:
    try:
        return read_hashes(log, tile)
    except FormatError as error:
        raise TileUnavailable(error.message, got=error.got) from error


def read_bundle(log: LogReader, index: int, size: int) -> tuple[bytes, ...]:
    """The entries of one bundle of a tree of ``size``. Raises ``TileUnavailable``."""
    try:
        return read_entries(log, Tile(None, index, tiles.width_at(None, index, size)))
    except FormatError as error:
        raise TileUnavailable(f"no bundle of entries: {error.message}", got=error.got) from error
