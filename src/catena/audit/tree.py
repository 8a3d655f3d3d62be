"""The state of a growing log: all that an append needs of what came before.

Immutable, so an append that fails simply never becomes the state. It holds the frontier and
the right-most tile of each level, not the log: a few hundred kilobytes at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catena.audit import merkle
from catena.audit.merkle import HASH_SIZE, Frontier, Node
from catena.audit.tiles import FULL_TILE, TILE_LEVELS, TILE_WIDTH, Tile, encode_bundle


@dataclass(frozen=True, slots=True)
class Tree:
    """A log's right edge.

    ``rows`` are the hashes of the right-most tile of each tile level and ``bundle`` the encoded
    entries of the right-most bundle; both are empty where that tile is full.
    """

    frontier: Frontier
    rows: tuple[bytes, ...]
    bundle: bytes

    @property
    def size(self) -> int:
        """How many entries the tree has."""
        return self.frontier.size

    def grow(self, entries: Sequence[bytes]) -> Growth:
        """The tree with more entries, and the files that make it durable."""
        nodes = self.frontier.nodes()
        leaves = [merkle.leaf_hash(entry) for entry in entries]
        frontier = self.frontier.extend(leaves, nodes)
        bundle, files = self._grow_bundles(entries)
        rows, tiles = self._grow_rows(leaves)
        return Growth(Tree(frontier, rows, bundle), tuple(files + tiles), nodes)

    def _grow_bundles(self, entries: Sequence[bytes]) -> tuple[bytes, list[tuple[Tile, bytes]]]:
        files: list[tuple[Tile, bytes]] = []
        bundle, size = self.bundle, self.size
        while entries:
            room = TILE_WIDTH - size % TILE_WIDTH
            index, fitting, entries = size // TILE_WIDTH, entries[:room], entries[room:]
            bundle += encode_bundle(fitting)
            size += len(fitting)
            files.append((Tile(None, index, size - index * TILE_WIDTH), bundle))
            if size % TILE_WIDTH == 0:
                bundle = b""
        return bundle, files

    def _grow_rows(
        self, leaves: Sequence[bytes]
    ) -> tuple[tuple[bytes, ...], list[tuple[Tile, bytes]]]:
        files: list[tuple[Tile, bytes]] = []
        rows = list(self.rows)
        level, fresh = 0, b"".join(leaves)
        while fresh:
            if level == len(rows):
                rows.append(b"")
            row = rows[level] + fresh
            index = (self.size >> (TILE_LEVELS * level)) // TILE_WIDTH
            fresh = b""
            while row:
                tile, row = row[:FULL_TILE], row[FULL_TILE:]
                files.append((Tile(level, index, len(tile) // HASH_SIZE), tile))
                rows[level] = tile
                if len(tile) == FULL_TILE:
                    rows[level] = b""
                    fresh += merkle.subtree_root(_split(tile))
                index += 1
            level += 1
        return tuple(rows), files


@dataclass(frozen=True, slots=True)
class Growth:
    """One append: the next ``tree``; the tiles that must be on disk before it counts; and the
    hash of every perfect subtree that proofs for the new entries need.
    """

    tree: Tree
    files: tuple[tuple[Tile, bytes], ...]
    nodes: dict[Node, bytes]


EMPTY_TREE = Tree(Frontier(), (), b"")


def _split(row: bytes) -> list[bytes]:
    return [row[start : start + HASH_SIZE] for start in range(0, len(row), HASH_SIZE)]
