"""A log in the database: the sequencer that several servers share, and a storage for tiles.

A turn is one transaction that holds the row of the log's state. It ends with a compare-and-swap
of that row and the new batch, or with nothing; a server that dies in it, or that stops for
longer than the database waits, loses it and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from catena.audit.folder import LogExists, LogMissing
from catena.audit.reader import LogUnreadable
from catena.audit.storage import Batch, CheckpointMoved, LogAtItsEnd, LogUnwritable, TileConflict
from catena.audit.tiles import CHECKPOINT, Tile
from catena.store.database import Database, Transaction
from catena.store.errors import Conflict, DatabaseGone
from catena.store.logfiles import LogBatch
from catena.store.logstate import LogState


class DatabaseSequencer:
    """A ``Sequencer`` for all servers that share one database."""

    shared = True

    def __init__(self, database: Database, origin: str, *, ending: bool = False) -> None:
        self._database = database
        self._origin = origin
        self._ending = ending  # whether this is who writes the last entry

    def found(self, checkpoint: str) -> None:
        """Begin an empty log. Raises ``LogExists``, ``LogUnwritable``."""
        state = LogState(origin=self._origin, size=0, checkpoint=checkpoint)
        try:
            with _writing(), self._database.transaction() as rows:
                if rows.log_states.get(self._origin) is not None:
                    raise LogExists("the database has a log of this name", got=self._origin)
                rows.log_states.insert(state)
        except Conflict as error:
            raise LogExists("the database has a log of this name", got=self._origin) from error

    @contextlib.contextmanager
    def turn(self) -> Iterator[DatabaseTurn]:
        """A transaction that nobody else can have at this time. Raises ``LogAtItsEnd``, too."""
        try:
            with _writing(), self._database.transaction() as rows:
                state = rows.log_states.lock(self._origin)
                if state is None:
                    raise LogMissing("the database has no such log", got=self._origin)
                if state.successor is not None and not self._ending:
                    raise LogAtItsEnd("this log has ended", got=f"goes on in {state.successor}")
                yield DatabaseTurn(rows, state)
        except Conflict as error:
            raise LogUnwritable("another server wrote these entries") from error

    def close(self) -> None:
        """A transaction that has ended holds nothing."""


class DatabaseTurn:
    """A ``Turn``: one transaction."""

    base = None

    def __init__(self, rows: Transaction, state: LogState) -> None:
        self._rows = rows
        self._state = state

    @property
    def head(self) -> str:
        """The log's newest checkpoint."""
        return self._state.checkpoint

    @property
    def staged(self) -> Sequence[Batch]:
        """What was committed and not forgotten."""
        stored = self._rows.log_batches.staged(self._state.origin)
        return [Batch(one.start, one.count, one.bundle, one.checkpoint) for one in stored]

    def commit(self, batch: Batch) -> None:
        """Add the batch and move the state. Raises ``LogUnwritable``."""
        origin = self._state.origin
        state = LogState(origin=origin, size=batch.end, checkpoint=batch.checkpoint)
        self._rows.log_batches.insert(
            LogBatch(
                origin=origin,
                start=batch.start,
                count=batch.count,
                bundle=batch.bundle,
                checkpoint=batch.checkpoint,
            )
        )
        if not self._rows.log_states.move(self._state, state):
            raise LogUnwritable("the log's state moved during the turn")
        self._state = state

    def forget(self, size: int) -> None:
        """Delete what is published."""
        self._rows.log_batches.forget(self._state.origin, size)


class DatabaseStorage:
    """A ``LogStorage`` in the same database, or another."""

    def __init__(self, database: Database, origin: str) -> None:
        self._database = database
        self._origin = origin

    def read(self, name: str, limit: int) -> bytes | None:
        """As ``LogReader``. Raises ``LogUnreadable``."""
        try:
            with self._database.snapshot() as rows:
                return rows.log_files.get(self._origin, name, limit + 1)
        except DatabaseGone as error:
            raise LogUnreadable(f"cannot read {name}: the database failed") from error

    def put(self, files: Sequence[tuple[Tile, bytes]]) -> None:
        """All of them in one transaction. Raises ``TileConflict``, ``LogUnwritable``."""
        with _writing(), self._database.transaction() as rows:
            for tile, content in files:
                if not rows.log_files.insert(self._origin, tile.path, content):
                    there = rows.log_files.get(self._origin, tile.path, len(content) + 1)
                    if there != content:
                        raise TileConflict("a tile has other content", got=tile.path)

    def swap_checkpoint(self, old: bytes | None, new: bytes) -> None:
        """One statement. Raises ``CheckpointMoved``, ``LogUnwritable``."""
        with _writing(), self._database.transaction() as rows:
            files = rows.log_files
            if old is None:
                moved = files.insert(self._origin, CHECKPOINT, new)
            else:
                moved = files.replace(self._origin, CHECKPOINT, old, new)
        if not moved:
            raise CheckpointMoved("another checkpoint is published")

    def drop_partials(self, tile: Tile) -> None:
        """At once, if the database lets it."""
        with contextlib.suppress(DatabaseGone), self._database.transaction() as rows:
            rows.log_files.remove_below(self._origin, tile.folder)

    def files(self) -> Iterator[str]:
        """All paths. Raises ``LogUnreadable``."""
        try:
            with self._database.snapshot() as rows:
                yield from rows.log_files.paths(self._origin)
        except DatabaseGone as error:
            raise LogUnreadable("cannot list the log: the database failed") from error

    def close(self) -> None:
        """The database is its owner's to close."""


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """The database's refusals as ``LogUnwritable``."""
    try:
        yield
    except DatabaseGone as error:
        raise LogUnwritable("the log's database failed", got=error.got) from error
