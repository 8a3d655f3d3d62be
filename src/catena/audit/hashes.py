"""Hashes of a log's subtrees from its tiles, for proofs: any node costs one tile, at most.

What a tile says is believed by nobody: a proof made of it leads to the signed root, or it does not.
"""

from __future__ import annotations

from catena.audit import tiles
from catena.audit.folder import MAX_CHECKPOINT, LogMissing
from catena.audit.merkle import Frontier, Node
from catena.audit.reader import LogReader
from catena.audit.tiles import CHECKPOINT, Tile
from catena.audit.tree import TileNodes, read_entries, read_hashes
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
        raise LogMissing("there is no checkpoint here")
    return content


class TileHashes:
    """The nodes of the tree of ``size`` entries, in a log that has ``grown`` to as many by now.

    A log keeps the partial tiles of its newest tree only, so those are what is read.
    """

    def __init__(self, log: LogReader, size: int, grown: int | None = None) -> None:
        self._log = log
        self._size = size
        self._nodes = TileNodes(log, size if grown is None else grown)

    def __call__(self, node: Node) -> bytes:
        """The hash of a perfect subtree of the tree. Raises ``TileUnavailable``."""
        try:
            return self._nodes(node)
        except FormatError as error:
            raise TileUnavailable(error.message, got=error.got) from error

    def frontier(self) -> Frontier:
        """The tree's right edge."""
        levels = [level for level in range(self._size.bit_length()) if self._size >> level & 1]
        return Frontier(
            self._size,
            tuple(self((level, (self._size >> level) - 1)) for level in reversed(levels)),
        )

    def leaves(self, index: int) -> bytes:
        """The leaf hashes of one tile, joined."""
        tile = Tile(0, index, tiles.width_at(0, index, self._size))
        try:
            return read_hashes(self._log, tile)
        except FormatError as error:
            raise TileUnavailable(error.message, got=error.got) from error


def read_bundle(log: LogReader, index: int, size: int) -> tuple[bytes, ...]:
    """The entries of one bundle of a tree of ``size``. Raises ``TileUnavailable``."""
    try:
        return read_entries(log, Tile(None, index, tiles.width_at(None, index, size)))
    except FormatError as error:
        raise TileUnavailable(f"no bundle of entries: {error.message}", got=error.got) from error
