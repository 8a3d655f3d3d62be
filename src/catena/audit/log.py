"""The transparency log: append-only, signed, durable before anything relies on it.

One ``append``, in order:

1. leaf hashes and the new frontier are computed in memory;
2. the entry bundles and hash tiles that changed are written and synchronised;
3. the checkpoint over them is signed, written beside the old one, synchronised, renamed
   over it, and the folder synchronised;
4. only then does the in-memory state move on, and the receipts are handed out.

A failure in 1 or 2 leaves the log as it was. A failure in 3 leaves it open whether the new
checkpoint is in place: it may have been read, so its size must never be signed again with
another root. The next append therefore first reads back what is on disk and continues from
there. Entries that got in that way are in the log although their append was refused: the log
may tell of a decision that had no effect, never the other way round.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from catena.audit import checkpoint as checkpoints
from catena.audit import merkle, tiles
from catena.audit.folder import MAX_CHECKPOINT, LogFolder
from catena.audit.tiles import CHECKPOINT, MAX_ENTRY, TILE_WIDTH, Tile
from catena.audit.tree import EMPTY_TREE, Growth, Tree
from catena.errors import CatenaError, FormatError, LogInconsistent, Unavailable, UsageError
from catena.formats.nodeapi import Receipt
from catena.formats.note import Checkpoint
from catena.keys.signer import Signer

MAX_BATCH = 1024


class LogUnwritable(Unavailable):
    """The log could not be written; nothing was decided."""

    code = "log-unwritable"
    remedy = "Give the log's disk space and make it writable; no decision is made until then."


class LogRewound(LogInconsistent):
    """The log is older than a checkpoint that was seen before."""

    code = "log-rewound"
    remedy = (
        "The folder was restored from an older copy. Restore the newest; keep both as evidence."
    )


class LogForked(LogInconsistent):
    """The log contradicts a checkpoint that was seen before."""

    code = "log-forked"


class LogDamaged(LogInconsistent):
    """The log's own entries do not hash to its checkpoint."""

    code = "log-damaged"
    remedy = "Restore the folder from a copy; `catena audit verify` names the file."


class BadEntry(UsageError):
    """An entry the log cannot hold."""

    code = "bad-entry"
    remedy = "An entry has 1 to 65535 bytes; keep large evidence elsewhere and log its digest."


class TransparencyLog:
    """A log open for writing, by this process alone. Safe to share between threads."""

    __slots__ = (
        "_checkpoint",
        "_folder",
        "_lock",
        "_lock_file",
        "_pending",
        "_queue",
        "_signer",
        "_tree",
        "_unfinished",
        "origin",
    )

    def __init__(
        self,
        folder: LogFolder,
        signer: Signer,
        *,
        lock_file: int,
        origin: str,
        tree: Tree,
        checkpoint: str,
    ) -> None:
        self.origin = origin
        self._folder = folder
        self._lock_file = lock_file
        self._signer = signer
        self._queue: deque[_Waiting] = deque()  # its append and popleft are atomic
        self._lock = threading.Lock()  # guards what follows, and the files, for a whole append
        self._tree = tree
        self._checkpoint = checkpoint
        self._pending: tuple[Tree, str] | None = None  # may be on disk as the checkpoint
        self._unfinished: tuple[Tile, ...] = ()  # may be on disk, and the tree lacks them

    @classmethod
    def create(cls, folder: Path, origin: str, signer: Signer) -> Self:
        """Start an empty log. Raises ``LogExists``, ``BadOrigin``, ``LogUnwritable``."""
        checkpoints.require_origin(origin)
        text = checkpoints.sign(signer, origin, 0, merkle.EMPTY_ROOT)
        place = LogFolder(folder)
        with _writing():
            folder.mkdir(parents=True, exist_ok=True)
            place.require_unused()
            lock_file = place.lock()
        with _closing_on_error(lock_file), _writing():
            place.require_unused()  # again: another process may have been faster to the lock
            place.replace_checkpoint(text.encode())
        return cls(
            place, signer, lock_file=lock_file, origin=origin, tree=EMPTY_TREE, checkpoint=text
        )

    @classmethod
    def open(cls, folder: Path, signer: Signer, *, remembered: str | None = None) -> Self:
        """Open a log and recompute it from its entries.

        ``remembered`` is a checkpoint that was kept apart from the folder: the log must
        contain that tree. Raises ``LogMissing``, ``LogInUse``, ``CheckpointForged``,
        ``LogDamaged``, ``LogRewound``, ``LogForked``, ``LogUnwritable``.
        """
        place = LogFolder(folder)
        place.read_checkpoint()
        with _writing():
            lock_file = place.lock()
        with _closing_on_error(lock_file):
            content = place.read_checkpoint()
            head = checkpoints.verify(content, signer.public_key)
            past = _remembered(remembered, head, signer)
            tree = _recompute(place, head, past)
            with _writing():
                _set_leftovers_aside(place, head.size)
        return cls(
            place,
            signer,
            lock_file=lock_file,
            origin=head.origin,
            tree=tree,
            checkpoint=content.decode(),
        )

    @property
    def size(self) -> int:
        """How many entries are in the log."""
        return self._tree.size

    def checkpoint(self) -> str:
        """The newest durable checkpoint: a signed note."""
        return self._checkpoint

    def append(self, entries: Sequence[bytes]) -> tuple[Receipt, ...]:
        """Add entries together; they are on disk when this returns.

        Threads that wait for their turn are served by one commit, in the order of their calls.
        Raises ``BadEntry`` and ``LogUnwritable``; after either nothing may be built on them.
        """
        _require_entries(entries)
        waiting = _Waiting(tuple(entries))
        self._queue.append(waiting)
        with self._lock:
            while waiting.outcome is None:
                self._serve()
        if isinstance(waiting.outcome, CatenaError):
            raise waiting.outcome
        return waiting.outcome

    def close(self) -> None:
        """Let another process write to the log; this object cannot any more."""
        with self._lock:
            if self._lock_file >= 0:
                os.close(self._lock_file)
                self._lock_file = -1

    def _serve(self) -> None:
        """Commit what waits, and give everyone in that group an outcome."""
        group = [self._queue.popleft()]
        count = len(group[0].entries)
        while self._queue and count + len(self._queue[0].entries) <= MAX_BATCH:
            group.append(self._queue.popleft())
            count += len(group[-1].entries)
        try:
            self._settle()
            growth = self._tree.grow([entry for one in group for entry in one.entries])
            receipts = _receipts(growth, count, self._commit(growth))
            for one in group:
                one.outcome = tuple(itertools.islice(receipts, len(one.entries)))
        except CatenaError as error:
            for one in group:
                one.outcome = error
        except BaseException:
            for one in group:
                one.outcome = LogUnwritable("the append was interrupted")
            raise

    def _commit(self, growth: Growth) -> str:
        """Steps 2 to 4 of the module's list; the new checkpoint."""
        self._unfinished = tuple(tile for tile, _ in growth.files)
        try:
            with _writing():
                for tile, content in growth.files:
                    self._folder.write(tile.path, content)
        except LogUnwritable:
            with contextlib.suppress(LogUnwritable):
                self._clear_unfinished()
            raise
        root = growth.tree.frontier.root()
        text = checkpoints.sign(self._signer, self.origin, growth.tree.size, root)
        self._pending = growth.tree, text
        with _writing():
            self._folder.replace_checkpoint(text.encode())
        self._tree, self._checkpoint = self._pending
        self._pending, self._unfinished = None, ()
        for tile, _ in growth.files:
            if not tile.partial:
                # Superseded partial tiles only take space: failing to remove them harms nobody.
                with contextlib.suppress(OSError):
                    self._folder.drop_partials(tile.folder)
        return text

    def _settle(self) -> None:
        """Be the log's writer and certain of what is on disk.

        Raises ``LogUnwritable``, or ``LogForked`` if somebody else wrote meanwhile.
        """
        if self._lock_file < 0:
            raise LogUnwritable("the log is closed")
        if self._pending is not None:
            pending_tree, pending_text = self._pending
            content = self._folder.read(CHECKPOINT, MAX_CHECKPOINT)
            if content == pending_text.encode():
                with _writing():
                    self._folder.replace_checkpoint(content)
                self._tree, self._checkpoint = pending_tree, pending_text
                self._unfinished = ()
            elif content != self._checkpoint.encode():
                raise LogForked("the checkpoint on disk is not one this process wrote")
            self._pending = None
        self._clear_unfinished()

    def _clear_unfinished(self) -> None:
        """Remove the tiles of a failed append, before other entries take their numbers.

        None of them is in the tree: each is wider than what the tree has. Raises
        ``LogUnwritable``.
        """
        if self._unfinished:
            with _writing():
                for tile in self._unfinished:
                    self._folder.remove(tile.path)
            self._unfinished = ()


@dataclass(slots=True, eq=False)
class _Waiting:
    """One call of ``append`` until it is served: not frozen, its outcome comes later."""

    entries: tuple[bytes, ...]
    outcome: tuple[Receipt, ...] | CatenaError | None = None


def _receipts(growth: Growth, count: int, checkpoint: str) -> Iterator[Receipt]:
    size = growth.tree.size
    for index in range(size - count, size):
        proof = merkle.inclusion_proof(index, size, growth.nodes.__getitem__)
        yield Receipt(
            index=index,
            leaf_hash=growth.nodes[0, index].hex(),
            proof=tuple(digest.hex() for digest in proof),
            checkpoint=checkpoint,
        )


def _require_entries(entries: Sequence[bytes]) -> None:
    if not 1 <= len(entries) <= MAX_BATCH:
        raise BadEntry(
            "wrong number of entries", expected=f"1 to {MAX_BATCH}", got=f"{len(entries)}"
        )
    for entry in entries:
        if not 1 <= len(entry) <= MAX_ENTRY:
            raise BadEntry(
                "entry has a wrong size", expected=f"1 to {MAX_ENTRY} bytes", got=f"{len(entry)}"
            )


def _remembered(text: str | None, head: Checkpoint, signer: Signer) -> Checkpoint | None:
    """The remembered checkpoint, verified, unless the log is older than it."""
    if text is None:
        return None
    past = checkpoints.verify(text.encode(), signer.public_key, origin=head.origin)
    if past.size > head.size:
        raise LogRewound(
            "the log is older than a checkpoint seen before",
            expected=f"at least {past.size} entries",
            got=f"{head.size}",
        )
    return past


def _recompute(folder: LogFolder, head: Checkpoint, past: Checkpoint | None) -> Tree:
    """The tree over the entries on disk, which must lead to ``head`` and through ``past``."""
    tree = EMPTY_TREE
    if past is not None and past.size == 0:
        past = None  # every log starts from the empty tree
    for index in range(-(-head.size // TILE_WIDTH)):
        entries = _read_bundle(folder, index, head.size)
        split = 0
        if past is not None and tree.size < past.size <= tree.size + len(entries):
            split = past.size - tree.size
            tree = tree.grow(entries[:split]).tree
            if tree.frontier.root() != past.root:
                raise LogForked("the log does not contain the tree of a checkpoint seen before")
        if entries[split:]:
            tree = tree.grow(entries[split:]).tree
    if tree.frontier.root() != head.root:
        raise LogDamaged("the entries do not hash to the checkpoint's root")
    return tree


def _read_bundle(folder: LogFolder, index: int, size: int) -> tuple[bytes, ...]:
    tile = Tile(None, index, tiles.width_at(None, index, size))
    content = folder.read(tile.path, tiles.MAX_BUNDLE)
    if content is None:
        raise LogDamaged("entries that the checkpoint covers are missing", got=tile.path)
    try:
        return tiles.parse_bundle(content, tile.width)
    except FormatError as error:
        raise LogDamaged(f"{tile.path} is not a bundle of entries: {error}") from error


def _set_leftovers_aside(folder: LogFolder, size: int) -> None:
    """Clear what a crashed append left beyond the checkpoint, so that it is never mixed up."""
    folder.settle_checkpoint()
    for name in tuple(folder.files()):
        if name.startswith("tile/") and tiles.is_beyond(name, size):
            folder.set_aside(name, size)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """The operating system's refusals as ``LogUnwritable``."""
    try:
        yield
    except OSError as error:
        raise LogUnwritable("the log cannot be written", got=error.strerror) from error


@contextlib.contextmanager
def _closing_on_error(descriptor: int) -> Iterator[None]:
    """Give the write lock back if opening the log fails."""
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise
