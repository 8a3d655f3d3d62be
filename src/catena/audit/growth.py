"""The proof that a log grew, from its hash tiles (C2SP tlog-tiles): what a witness asks for.

A tile is read for each of the few subtrees that the proof names, however large the log is.
What the proof is worth, only its verification shows.
"""

from __future__ import annotations

from catena.audit import merkle, tiles
from catena.audit.merkle import HASH_SIZE, Node
from catena.audit.reader import LogReader
from catena.audit.tiles import FULL_TILE, TILE_LEVELS, TILE_WIDTH, Tile
from catena.errors import LogInconsistent
from catena.formats.note import Checkpoint


class TileUnusable(LogInconsistent):
    """A hash tile that the log's checkpoint covers is missing or has a wrong size."""

    code = "tile-unusable"
    remedy = "Run `catena audit verify` on the log: it names every file that is wrong."


class CheckpointNotContained(LogInconsistent):
    """A log that does not contain the tree of a checkpoint that was signed for it."""

    code = "checkpoint-not-contained"
    remedy = "The log was forked or rewound: keep the folder and the checkpoint as evidence."


def prove_growth(
    reader: LogReader, old: int, new: int, grown: int | None = None
) -> tuple[bytes, ...]:
    """The consistency proof from size ``old`` to ``new``; empty where nothing is to be proven.

    ``grown`` is the log's size by now, if it is larger: only the partial tiles of its newest tree
    are sure to be there. Raises ``TileUnusable``.
    """
    if not 0 < old < new:
        return ()
    size = max(new, grown or 0)
    return merkle.consistency_proof(old, new, lambda node: _subtree(reader, node, size))


def require_contained(reader: LogReader, past: Checkpoint, size: int) -> None:
    """Check that a log of ``size``, whose tiles were verified, contains an older checkpoint's tree.

    Raises ``CheckpointNotContained`` and ``TileUnusable``.
    """
    if past.size > size:
        raise CheckpointNotContained(
            "the log is older than a checkpoint of it",
            expected=f"at least {past.size} entries",
            got=f"{size}",
        )
    root = merkle.EMPTY_ROOT
    if past.size:
        root = merkle.range_root(0, past.size, lambda node: _subtree(reader, node, size))
    if root != past.root:
        raise CheckpointNotContained(
            f"the log's first {past.size} entries have another root",
            expected=past.root.hex(),
            got=root.hex(),
        )


def _subtree(reader: LogReader, node: Node, size: int) -> bytes:
    """The root of a perfect subtree, from the tile that holds hashes below it."""
    level, inside = divmod(node[0], TILE_LEVELS)
    first = node[1] << inside  # of the tile's hashes below it, counted over its whole level
    tile = Tile(level, first // TILE_WIDTH, tiles.width_at(level, first // TILE_WIDTH, size))
    row = _read(reader, tile)
    start = first % TILE_WIDTH
    hashes = [
        row[number * HASH_SIZE : (number + 1) * HASH_SIZE]
        for number in range(start, start + (1 << inside))
    ]
    return merkle.subtree_root(hashes)


def _read(reader: LogReader, tile: Tile) -> bytes:
    """A tile, or the beginning of the full one that took its place meanwhile."""
    for candidate in dict.fromkeys((tile, Tile(tile.level, tile.index))):
        content = reader.read(candidate.path, FULL_TILE)
        if content is None:
            continue
        if len(content) != candidate.width * HASH_SIZE:
            raise TileUnusable(f"{candidate.path} has a wrong size", got=f"{len(content)} bytes")
        return content
    raise TileUnusable(f"{tile.path} is missing")
