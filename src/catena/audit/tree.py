"""The state of a growing log: all that an append needs of what came before.

Immutable, so an append that fails simply never becomes the state. It holds the frontier and
the right-most tile of each level, not the log: a few hundred kilobytes at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from catena.audit import merkle, tiles
from catena.audit.merkle import HASH_SIZE, Frontier, Node, Row
from catena.audit.reader import LogReader, read_entries, read_hashes
from catena.audit.tiles import (
    FULL_TILE,
    TILE_LEVELS,
    TILE_WIDTH,
    Tile,
    encode_bundle,
)
from catena.errors import FormatError


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
        frontier, levels = self.frontier.grow(merkle.leaf_hashes(entries))
        bundle, files = self._grow_bundles(entries)
        rows, tiles = self._grow_rows(levels)
        return Growth(self, Tree(frontier, rows, bundle), tuple(files + tiles), levels)

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
        self, levels: Sequence[Row]
    ) -> tuple[tuple[bytes, ...], list[tuple[Tile, bytes]]]:
        files: list[tuple[Tile, bytes]] = []
        rows = list(self.rows)
        for level, nodes in enumerate(levels[::TILE_LEVELS]):
            first = self.size >> (TILE_LEVELS * level)  # of the new nodes on this level
            fresh = nodes.hashes[first - nodes.start :]
            if level == len(rows):
                rows.append(b"")
            row = rows[level] + b"".join(fresh)
            for index in range(first // TILE_WIDTH, -(-(first + len(fresh)) // TILE_WIDTH)):
                tile, row = row[:FULL_TILE], row[FULL_TILE:]
                files.append((Tile(level, index, len(tile) // HASH_SIZE), tile))
                rows[level] = b"" if len(tile) == FULL_TILE else tile
        return tuple(rows), files


@dataclass(frozen=True, slots=True)
class Growth:
    """One append: the tree ``before``, the next ``tree``, the ``files`` that must be on disk
    before it counts, and the nodes of each level that took part.
    """

    before: Tree
    tree: Tree
    files: tuple[tuple[Tile, bytes], ...]
    levels: tuple[Row, ...]

    def leaf_hash(self, index: int) -> bytes:
        """The hash of one of the new entries."""
        return self.levels[0].hashes[index - self.levels[0].start]

    def proofs(self) -> Iterator[tuple[int, list[bytes]]]:
        """Index and inclusion path, from the leaf up, of each new entry in the next tree.

        A sibling on the path is a node that took part, a perfect subtree of the tree before,
        or the ragged right edge of the next tree.
        """
        size, old = self.tree.size, self.before.frontier.nodes()
        edges = self.tree.frontier.edges()
        for entry in range(self.before.size, size):
            path, index = [], entry
            for level, edge in enumerate(edges):
                sibling = index ^ 1
                if (sibling + 1) << level <= size:
                    path.append(self._node(level, sibling, old))
                elif edge is not None and sibling == size >> level:
                    path.append(edge)
                index >>= 1
            yield entry, path

    def _node(self, level: int, index: int, old: dict[Node, bytes]) -> bytes:
        if level < len(self.levels):
            row = self.levels[level]
            if index >= row.start:
                return row.hashes[index - row.start]
        return old[level, index]


EMPTY_TREE = Tree(Frontier(), (), b"")


def load_tree(reader: LogReader, size: int) -> Tree:
    """The right edge of a log of ``size`` from its tiles and its last bundle.

    Nothing of it is to be believed before ``frontier.root()`` is one that was signed. Raises
    ``FormatError`` for files that are missing or do not fit together.
    """
    rows = []
    for level in range(tiles.levels(size)):
        index = (size >> (TILE_LEVELS * level)) // TILE_WIDTH
        width = tiles.width_at(level, index, size)
        rows.append(read_hashes(reader, Tile(level, index, width)) if width else b"")
    bundle = b""
    if size % TILE_WIDTH:
        entries = read_entries(reader, Tile(None, size // TILE_WIDTH, size % TILE_WIDTH))
        bundle = encode_bundle(entries)
        if b"".join(merkle.leaf_hashes(entries)) != rows[0]:
            raise FormatError("the last entries do not hash to the last tile")
    hashes = [digest for row in reversed(rows) for digest in _perfect(row)]
    return Tree(Frontier(size, tuple(hashes)), tuple(rows), bundle)


_KEPT = 16
"""Tiles whose nodes are kept: a proof names a few of each level's."""


class TileNodes:
    """The hashes of a log's perfect subtrees, from its tiles, for ``merkle``'s proofs.

    What a proof made with it is worth, only its verification shows. ``read`` says how a tile is
    read, and which errors its faults are.
    """

    def __init__(
        self, reader: LogReader, size: int, read: Callable[[LogReader, Tile], bytes] = read_hashes
    ) -> None:
        self._reader = reader
        self._size = size
        self._read = read
        self._levels = lru_cache(_KEPT)(self._read_levels)

    def __call__(self, node: Node) -> bytes:
        """The hash of ``(level, index)``, a perfect subtree of the tree. Raises as ``read`` does."""
        level, inside = divmod(node[0], TILE_LEVELS)
        tile = (node[1] << inside) // TILE_WIDTH
        return self._levels(level, tile)[inside][node[1] - (tile << (TILE_LEVELS - inside))]

    def _read_levels(self, level: int, index: int) -> list[list[bytes]]:
        tile = Tile(level, index, tiles.width_at(level, index, self._size))
        _, rows = Frontier().grow(_split(self._read(self._reader, tile)))
        return [row.hashes for row in rows]


def _perfect(row: bytes) -> Iterator[bytes]:
    """The perfect subtrees over the hashes of a tile that is not full, largest first."""
    yield from Frontier().grow(_split(row))[0].hashes


def _split(row: bytes) -> list[bytes]:
    return [row[start : start + HASH_SIZE] for start in range(0, len(row), HASH_SIZE)]
