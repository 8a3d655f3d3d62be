"""An index over a log, so that questions about years of it need not read years of it.

A SQLite file that follows from the log alone. It remembers the size, the root and the right edge of
the tree that it covers; to grow, the new entries are verified one by one, added to that edge, and
must lead to the root that the log's checkpoint signs. That proves at once that the new ones hold
and that the old ones are still the log's beginning. An index that does not fit is thrown away.

The file is nobody's signature. A hit is therefore read from the log again before it is shown
(``audit.search``); that a changed index hides nothing is certain only after a rebuild.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from catena.audit import merkle
from catena.audit.entries import Entry
from catena.audit.facts import facts_of, node_of
from catena.audit.leaves import Leaves
from catena.audit.merkle import HASH_SIZE, Frontier
from catena.audit.tiles import CHECKPOINT, TILE_WIDTH
from catena.audit.verify import RootMismatch, open_leaf
from catena.errors import Unavailable, UsageError
from catena.formats.note import Checkpoint
from catena.keys.signer import PublicKey, key_id_of

FORMAT = 1
_APPLICATION = 0x63617469
"""SQLite's ``application_id``, "cati": only a file that has it is ever overwritten."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TABLES = """
CREATE TABLE covered (format INTEGER, origin TEXT, key TEXT, size INTEGER, root BLOB, edge BLOB);
CREATE TABLE entries (id INTEGER PRIMARY KEY, at INTEGER, kind TEXT, node TEXT, name TEXT);
CREATE INDEX entries_of_node ON entries (node, id);
CREATE TABLE facts (
    what TEXT, value TEXT, entry INTEGER, PRIMARY KEY (what, value, entry)
) WITHOUT ROWID;
"""


class NotAnIndex(UsageError):
    """A file in the index's place that is none."""

    code = "not-an-index"
    remedy = "Give another file with --index; this one is left alone."


class IndexUnusable(Unavailable):
    """The index cannot be read or written."""

    code = "index-unusable"
    remedy = "Give a file in a folder that you may write to with --index, or remove the old one."


@dataclass(frozen=True, slots=True)
class Covered:
    """The tree that an index covers; ``edge`` is its frontier."""

    origin: str
    key: str
    edge: Frontier


def microseconds(at: datetime) -> int:
    """An instant as the index keeps it."""
    return (at - _EPOCH) // timedelta(microseconds=1)


class LogIndex:
    """An open index. ``news`` says what opening it did."""

    def __init__(self, rows: sqlite3.Connection, news: str) -> None:
        self.rows = rows
        self.news = news


@contextlib.contextmanager
def open_index(
    path: Path, leaves: Leaves, head: Checkpoint, key: PublicKey, *, rebuild: bool = False
) -> Iterator[LogIndex]:
    """The index in ``path`` for the log whose verified checkpoint is ``head``, made current first.

    Raises ``NotAnIndex``, ``IndexUnusable``, and the faults of ``audit.verify`` for entries that
    do not hold.
    """
    _require_ours(path)
    with _database(path) as rows:
        try:
            rows.execute("BEGIN IMMEDIATE")
            covered, why = (None, "rebuilt") if rebuild else _covered(rows, head, key)
            news = _grow(rows, leaves, head, key, covered) if covered else None
            if news is None:
                rows.execute("ROLLBACK")
                rows.execute("BEGIN IMMEDIATE")
                _start_over(rows)
                start = Covered(head.origin, key_id_of(key), Frontier())
                if _grow(rows, leaves, head, key, start) is None:
                    raise RootMismatch("the entries lead to another root", file=CHECKPOINT)
                news = why or "rebuilt: the log does not grow out of what the index covers"
            rows.execute("COMMIT")
        except sqlite3.Error as error:
            raise IndexUnusable(f"the index cannot be used: {error}", got=str(path)) from error
        yield LogIndex(rows, news)


def _require_ours(path: Path) -> None:
    """Refuse a file that is no index of ours. Raises ``NotAnIndex``, ``IndexUnusable``."""
    try:
        if not path.exists():
            return
        with path.open("rb") as file:
            start = file.read(100)
    except OSError as error:
        raise IndexUnusable(f"cannot read the index: {error.strerror}", got=str(path)) from error
    # SQLite file format, "The Database Header": application_id is at 68.
    if start and (start[:16] != b"SQLite format 3\0" or start[68:72] != _app_bytes()):
        raise NotAnIndex("this file is not an index of a log", got=str(path))


def _app_bytes() -> bytes:
    return _APPLICATION.to_bytes(4, "big")


@contextlib.contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        rows = sqlite3.connect(path, isolation_level=None)
    except sqlite3.Error as error:
        raise IndexUnusable(f"the index cannot be opened: {error}", got=str(path)) from error
    with contextlib.closing(rows):
        yield rows


def _covered(
    rows: sqlite3.Connection, head: Checkpoint, key: PublicKey
) -> tuple[Covered | None, str]:
    """What the index covers if that can be this log's beginning; else why it is thrown away."""
    if not rows.execute("SELECT name FROM sqlite_master WHERE name = 'covered'").fetchall():
        return None, "built"
    found = rows.execute("SELECT format, origin, key, size, root, edge FROM covered").fetchall()
    if len(found) != 1 or found[0][0] != FORMAT:
        return None, "rebuilt: the index is of another version"
    _, origin, made_with, size, root, edge = found[0]
    if (origin, made_with) != (head.origin, key_id_of(key)):
        return None, "rebuilt: the index is of another log"
    if not isinstance(size, int) or not isinstance(edge, bytes):
        return None, "rebuilt: the index is damaged"
    if not 0 <= size <= head.size:
        return None, "rebuilt: the index covers more than the log has"
    hashes = tuple(edge[at : at + HASH_SIZE] for at in range(0, len(edge), HASH_SIZE))
    frontier = Frontier(size, hashes)
    (count,) = rows.execute(
        "SELECT count(*) FROM entries WHERE id BETWEEN 0 AND ?", (size - 1,)
    ).fetchone()
    (total,) = rows.execute("SELECT count(*) FROM entries").fetchone()
    if len(hashes) != size.bit_count() or frontier.root() != root or {count, total} != {size}:
        return None, "rebuilt: the index is damaged"
    return Covered(origin, made_with, frontier), ""


def _start_over(rows: sqlite3.Connection) -> None:
    for table in ("covered", "entries", "facts"):
        rows.execute(f"DROP TABLE IF EXISTS {table}")
    rows.execute(f"PRAGMA application_id = {_APPLICATION}")
    for statement in _TABLES.split(";"):
        rows.execute(statement)


def _grow(
    rows: sqlite3.Connection, leaves: Leaves, head: Checkpoint, key: PublicKey, covered: Covered
) -> str | None:
    """Add what is new; None if it does not lead to the root that the checkpoint signs."""
    edge, before = covered.edge, covered.edge.size
    while edge.size < head.size:
        bundle = leaves.bundle(edge.size // TILE_WIDTH)[edge.size % TILE_WIDTH :]
        for index, leaf in enumerate(bundle, edge.size):
            _add(rows, index, open_leaf(leaf, key, index))
        edge = edge.extend(map(merkle.leaf_hash, bundle))
    if edge.root() != head.root:
        return None
    rows.execute("DELETE FROM covered")
    rows.execute(
        "INSERT INTO covered VALUES (?, ?, ?, ?, ?, ?)",
        (FORMAT, covered.origin, covered.key, edge.size, head.root, b"".join(edge.hashes)),
    )
    return "current" if before == head.size else f"grown by {head.size - before} entries"


def _add(rows: sqlite3.Connection, index: int, entry: Entry) -> None:
    node, name = node_of(entry)
    rows.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
        (index, microseconds(entry.at), entry.kind, node, name),
    )
    rows.executemany(
        "INSERT INTO facts VALUES (?, ?, ?)",
        [(what, value, index) for what, value in facts_of(entry)],
    )
