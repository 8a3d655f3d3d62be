"""Where a log's files lie, and who may write the next ones: two small interfaces.

A ``Sequencer`` holds the head: the newest signed checkpoint, and the entries behind it that
readers may not see yet. Handing it a batch is the moment from which the batch is in the log. A
``LogStorage`` holds what readers see: tiles and the checkpoint, as C2SP tlog-tiles names them.

Only entries that a sequencer has are ever written as tiles. So everybody who writes a tile
writes the same bytes, however late and however often: a writer that lost its turn, or that was
stopped and goes on, changes nothing. That is why a full tile with other content is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from catena.audit.reader import LogReader
from catena.audit.tiles import Tile
from catena.errors import LogInconsistent, Unavailable


class LogUnwritable(Unavailable):
    """The log could not be written; nothing was decided."""

    code = "log-unwritable"
    remedy = "Give the log's disk space and make it writable; no decision is made until then."


class LogAtItsEnd(LogUnwritable):
    """Another log goes on for this one: nothing more is appended here."""

    code = "log-at-its-end"
    remedy = (
        "Finish with `catena server rotate-log` and the same --origin, on each server of this log, "
        "and start them again."
    )


class TileConflict(LogInconsistent):
    """A full tile exists with other content than the log's entries lead to."""

    code = "tile-conflict"
    remedy = (
        "Somebody else wrote here: two logs share one place, or a file was changed. Keep it as "
        "evidence, and check the log with `catena audit verify`."
    )


class CheckpointMoved(Unavailable):
    """The published checkpoint is not the one that was to be replaced."""

    code = "checkpoint-moved"
    remedy = "Read the checkpoint again: another server published a newer one."


class LogStorage(LogReader, Protocol):
    """What readers see of a log, and how it gets there. Safe to share between threads."""

    def put(self, files: Sequence[tuple[Tile, bytes]]) -> None:
        """Store tiles; one that is there already with this content is left alone.

        Raises ``TileConflict`` for a full tile with other content, ``LogUnwritable``.
        """
        ...

    def swap_checkpoint(self, old: bytes | None, new: bytes) -> None:
        """Publish a checkpoint in the place of ``old``; None: where there is none yet.

        After ``LogUnwritable`` it is unknown which of the two readers see. Raises
        ``CheckpointMoved`` if there is another one than ``old``.
        """
        ...

    def drop_partials(self, tile: Tile) -> None:
        """Remove the partial versions of a tile that is full now, at once or later.

        They only take space: failing to remove them harms nobody and raises nothing.
        """
        ...

    def files(self) -> Iterator[str]:
        """The paths of all files there are."""
        ...

    def close(self) -> None:
        """Give back connections and descriptors."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that are in the log together: ``count`` of them from index ``start``.

    ``bundle`` has them in the encoding of entry bundles, ``checkpoint`` signs the tree that ends
    with them; where it comes from a disk or a database, it is *untrusted* until verified.
    """

    start: int
    count: int
    bundle: bytes
    checkpoint: str

    @property
    def end(self) -> int:
        """The size of the log with this batch."""
        return self.start + self.count


class Turn(Protocol):
    """The right to decide what comes next in the log, while it lasts."""

    @property
    def base(self) -> str | None:
        """The checkpoint that ``staged`` begins from when a log is opened.

        None: the published one, whose tiles are there for certain.
        """
        ...

    @property
    def head(self) -> str:
        """The newest checkpoint of the log; nobody else can move it during this turn."""
        ...

    @property
    def staged(self) -> Sequence[Batch]:
        """The batches up to the head that readers may not see yet, in order."""
        ...

    def commit(self, batch: Batch) -> None:
        """Make the batch the log's next; it is once the turn ends without an error."""
        ...

    def forget(self, size: int) -> None:
        """The log is published up to ``size``: what is staged below is not needed any more."""
        ...


class Sequencer(Protocol):
    """Hands out turns: one at a time, to all that write to this log."""

    @property
    def shared(self) -> bool:
        """Whether other processes write to the log, too."""
        ...

    def found(self, checkpoint: str) -> None:
        """Begin with this checkpoint of an empty log. Raises ``LogExists``, ``LogUnwritable``."""
        ...

    def turn(self) -> AbstractContextManager[Turn]:
        """Wait for a turn. Raises ``LogUnwritable``; from its end, too.

        After that it is unknown whether a batch that was committed in it is in the log; the
        next turn's head tells.
        """
        ...

    def close(self) -> None:
        """Give the right to write back."""
        ...


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """The operating system's refusals as ``LogUnwritable``."""
    try:
        yield
    except OSError as error:
        raise LogUnwritable("the log cannot be written", got=error.strerror) from error
