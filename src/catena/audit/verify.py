"""Offline verification of a log from its folder and public key alone.

1. The checkpoint is signed by the log's key, for the expected origin.
2. Every entry bundle that its size calls for is there and holds exactly that many entries.
3. Every entry is signed by the log's key, is of a known kind and reads as one.
4. Every hash tile is there and holds exactly the hashes that the entries lead to.
5. The root that the entries lead to is the checkpoint's.
6. No other file lies in the log: tiles beyond the checkpoint mean a crash or a rewind. Older
   partial tiles, which a log keeps until the tile is full, must agree with the newer one.

Nothing is believed from a hash tile; memory does not grow with the log. What is *not* proven:
that this is the newest checkpoint (compare it with one that somebody else kept), and that
what an entry says is true.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from catena.audit import checkpoint as checkpoints
from catena.audit import merkle, tiles
from catena.audit.entries import Entry
from catena.audit.folder import OWN_FILES, UNCOMMITTED, LogFolder
from catena.audit.leaf import open_entry
from catena.audit.merkle import HASH_SIZE
from catena.audit.past import LogForked, require_not_rewound
from catena.audit.reader import LogReader, TileAbsent, read_entries, read_hashes, read_tile
from catena.audit.tiles import CHECKPOINT, FULL_TILE, MAX_BUNDLE, TILE_WIDTH, Tile
from catena.audit.tree import EMPTY_TREE, Tree
from catena.errors import FormatError, LogInconsistent, Refusal
from catena.formats.note import Checkpoint
from catena.keys.signer import PublicKey

WRITER_GRACE = 0.25
"""Seconds that a running writer gets to put the checkpoint behind its tiles in place."""


class LogFault(LogInconsistent):
    """A fault at a known place: ``file`` below the folder, ``entry`` by index."""

    def __init__(
        self,
        message: str,
        *,
        file: str,
        entry: int | None = None,
        expected: str | None = None,
        got: str | None = None,
    ) -> None:
        super().__init__(message, expected=expected, got=got)
        self.file = ascii(file)[1:-1]  # a file's name may be anything
        self.entry = entry

    def __str__(self) -> str:
        """The message with its place."""
        place = self.file + ("" if self.entry is None else f", entry {self.entry}")
        return f"{place}: {super().__str__()}"

    def as_dict(self) -> dict[str, object]:
        """The JSON object of the error, with its place."""
        place: dict[str, object] = {"file": self.file}
        if self.entry is not None:
            place["entry"] = self.entry
        return {**super().as_dict(), **place}


class TileMissing(LogFault):
    """A file that the checkpoint covers is not there."""

    code = "tile-missing"


class BundleMalformed(LogFault):
    """An entry bundle does not hold the entries it should."""

    code = "bundle-malformed"


class EntryForged(LogFault):
    """An entry that the log key did not sign."""

    code = "entry-forged"


class EntryMalformed(LogFault):
    """A signed entry that is none of the kinds catena writes."""

    code = "entry-malformed"


class TileAltered(LogFault):
    """A hash tile, or an older partial tile, that the entries do not lead to."""

    code = "tile-altered"


class RootMismatch(LogFault):
    """The entries do not lead to the root that the checkpoint signs."""

    code = "root-mismatch"


class TileBeyondCheckpoint(LogFault):
    """A tile that is no part of the tree the checkpoint speaks of."""

    code = "tile-beyond-checkpoint"
    remedy = (
        "If the server was killed while it wrote, starting it repairs this; if the log's disk is "
        "full, make room. If neither, an older checkpoint was put back: keep the folder as evidence."
    )


class StrangeFile(LogFault):
    """A file that does not belong into a log."""

    code = "strange-file"
    remedy = "Find out who put it there; the log writes only its checkpoint and tiles."


class LogSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified log says of itself; ``root`` is hex, ``kinds`` counts entries.

    ``set_aside`` counts files that crashed appends left and later starts moved out of the log.
    """

    origin: str
    size: int
    root: str
    kinds: dict[str, int]
    set_aside: int = 0


@dataclass(frozen=True, slots=True)
class VerifiedEntry:
    """An entry whose signature holds; the log as a whole may still turn out inconsistent."""

    index: int
    entry: Entry


Visit = Callable[[VerifiedEntry], None]


def verify_folder(
    folder: Path,
    public_key: PublicKey,
    *,
    origin: str | None = None,
    visit: Visit | None = None,
    remembered: Checkpoint | None = None,
) -> LogSummary:
    """Verify the log in ``folder`` as the module describes, step by step.

    ``visit`` is called with every entry in order; the tree of ``remembered``, a checkpoint that was verified
    before, must be the beginning of this one. Raises ``LogMissing``, ``LogUnreadable`` or
    a ``LogInconsistent`` that says where.
    """
    place = LogFolder(folder)
    head = checkpoints.verify(place.read_checkpoint(), public_key, origin=origin)  # (1)
    return verify_log(place, head, public_key, visit=visit, remembered=remembered)


def verify_log(
    log: LogReader,
    head: Checkpoint,
    public_key: PublicKey,
    *,
    visit: Visit | None = None,
    remembered: Checkpoint | None = None,
) -> LogSummary:
    """Steps 2 to 6 for ``head``, whose signature was verified, wherever the log's files lie.

    Step 6 is for folders alone: nobody else can say which files there are. Raises as
    ``verify_folder``.
    """
    if remembered is not None:
        require_not_rewound(head, remembered)
    kinds = _Walk(log, head, public_key, visit, remembered).run()
    set_aside = _check_files(log, head, public_key) if isinstance(log, LogFolder) else 0  # (6)
    return LogSummary(
        origin=head.origin,
        size=head.size,
        root=head.root.hex(),
        kinds=dict(sorted(kinds.items())),
        set_aside=set_aside,
    )


class _Walk:
    """One pass over the entry bundles, growing the tree that the folder should hold."""

    def __init__(
        self,
        folder: LogReader,
        head: Checkpoint,
        key: PublicKey,
        visit: Visit | None,
        past: Checkpoint | None,
    ) -> None:
        self._folder = folder
        self._head = head
        self._key = key
        self._visit = visit
        self._past = past
        self._kinds: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        tree, size = EMPTY_TREE, self._head.size
        for index in range(-(-size // TILE_WIDTH)):
            bundle = Tile(None, index, tiles.width_at(None, index, size))
            leaves = self._read_bundle(bundle)
            self._check_past(tree, leaves)
            growth = tree.grow(leaves)
            for tile, hashes in growth.files:
                # A higher tile grows with each bundle; on disk it has its last width. (4)
                if tile.level is not None and tile.width == _final_width(tile, size):
                    self._compare(tile, hashes)
            tree = growth.tree
        if tree.frontier.root() != self._head.root:  # (5)
            raise RootMismatch("the entries lead to another root", file=CHECKPOINT)
        return self._kinds

    def _check_past(self, tree: Tree, leaves: Sequence[bytes]) -> None:
        """Where the remembered tree ends, the root must be the remembered one."""
        past = self._past
        if past is None or not tree.size < past.size <= tree.size + len(leaves):
            return
        frontier = tree.frontier.extend(map(merkle.leaf_hash, leaves[: past.size - tree.size]))
        if frontier.root() != past.root:
            raise LogForked("the log does not contain the tree of a checkpoint seen before")

    def _read_bundle(self, tile: Tile) -> tuple[bytes, ...]:
        leaves = covered_entries(self._folder, tile)  # (2)
        for index, leaf in enumerate(leaves, tile.index * TILE_WIDTH):
            entry = open_leaf(leaf, self._key, index, tile.path)  # (3)
            self._kinds[entry.kind] += 1
            if self._visit is not None:
                self._visit(VerifiedEntry(index, entry))
        return leaves

    def _compare(self, tile: Tile, hashes: bytes) -> None:
        content = covered_hashes(self._folder, tile)
        if content != hashes:
            wrong = next(
                number
                for number in range(tile.width)
                if content[number * HASH_SIZE :][:HASH_SIZE]
                != hashes[number * HASH_SIZE :][:HASH_SIZE]
            )
            raise TileAltered(
                f"hash {wrong} of the tile is not the one its entries lead to",
                file=tile.path,
                entry=tile.index * TILE_WIDTH + wrong if tile.level == 0 else None,
            )


def open_leaf(leaf: bytes, key: PublicKey, index: int, file: str | None = None) -> Entry:
    """The entry in a leaf, which lies in ``file``, or else in the full bundle of its index.

    Raises ``EntryForged``, ``EntryMalformed``.
    """
    file = file or Tile(None, index // TILE_WIDTH).path
    try:
        return open_entry(leaf, key)
    except Refusal as error:
        raise EntryForged(f"not signed by this log: {error}", file=file, entry=index) from error
    except FormatError as error:
        raise EntryMalformed(f"not an entry: {error}", file=file, entry=index) from error


def covered_entries(log: LogReader, tile: Tile) -> tuple[bytes, ...]:
    """The entries of a bundle that a checkpoint covers.

    Raises ``TileMissing``, ``BundleMalformed``.
    """
    try:
        with _covered(tile):
            return read_entries(log, tile)
    except FormatError as error:
        raise BundleMalformed(
            f"does not hold {tile.width} entries: {error}", file=tile.path
        ) from error


def covered_hashes(log: LogReader, tile: Tile) -> bytes:
    """The hashes of a tile that a checkpoint covers. Raises ``TileMissing``, ``TileAltered``."""
    try:
        with _covered(tile):
            return read_hashes(log, tile)
    except FormatError as error:
        raise TileAltered(
            "the tile has a wrong size", file=tile.path, expected=error.expected, got=error.got
        ) from error


@contextmanager
def _covered(tile: Tile) -> Iterator[None]:
    try:
        yield
    except TileAbsent as error:
        raise TileMissing(
            "the checkpoint covers this file, and it is missing", file=tile.path
        ) from error


def _final_width(tile: Tile, size: int) -> int:
    return tiles.width_at(tile.level, tile.index, size)


def _check_files(folder: LogFolder, head: Checkpoint, key: PublicKey) -> int:
    """(6) for every file there is; how many were set aside by earlier starts."""
    beyond, aside = [], 0
    for name in folder.files():
        if name.startswith(f"{UNCOMMITTED}/"):
            aside += 1
        elif name in OWN_FILES:
            continue
        else:
            tile = _parse_path(name)
            if tile.width > _final_width(tile, head.size):
                beyond.append(tile)
            elif tile.width < _final_width(tile, head.size):
                _check_older(folder, tile, _final_width(tile, head.size))
    _check_beyond(folder, head, key, beyond)
    return aside


def _parse_path(name: str) -> Tile:
    try:
        return tiles.parse_path(name)
    except FormatError as error:
        raise StrangeFile("this file does not belong into a log", file=name) from error


def _check_older(folder: LogFolder, tile: Tile, width: int) -> None:
    """An older partial tile must be the beginning of the newer one, which was verified."""
    limit = MAX_BUNDLE if tile.level is None else FULL_TILE
    content = folder.read(tile.path, limit)
    if content is None:
        return  # made way for the full tile meanwhile
    newest = Tile(tile.level, tile.index, width)
    with _covered(newest):
        newer, _ = read_tile(folder, newest)
    if not newer.startswith(content) or not _has_width(tile, content):
        raise TileAltered("an older partial tile differs from the newer one", file=tile.path)


def _has_width(tile: Tile, content: bytes) -> bool:
    if tile.level is not None:
        return len(content) == tile.width * HASH_SIZE
    try:
        tiles.parse_bundle(content, tile.width)
    except FormatError:
        return False
    return True


def _check_beyond(
    folder: LogFolder, head: Checkpoint, key: PublicKey, beyond: Sequence[Tile]
) -> None:
    """Tiles beyond the checkpoint are a fault unless the log's writer is just adding them."""
    if not beyond:
        return
    time.sleep(WRITER_GRACE)
    now = checkpoints.verify(folder.read_checkpoint(), key, origin=head.origin)
    for tile in beyond:
        if tile.width > _final_width(tile, max(now.size, head.size)):
            raise TileBeyondCheckpoint(
                "the checkpoint does not cover this file",
                file=tile.path,
                expected=f"a log of {now.size} entries",
            )
