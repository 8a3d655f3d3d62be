"""The transparency log: append-only, signed, durable before anything relies on it.

One ``append``, in order (``audit.storage`` has the two places it speaks of):

1. what was committed and could not be published is published, or nothing goes on; then a turn:
   nobody else decides what comes next, and what others added meanwhile is taken in;
2. leaf hashes and the new frontier are computed in memory, and the checkpoint is signed;
3. entries and checkpoint are handed to the sequencer: durable, and the log's next, or not at all;
4. the tiles that changed are stored, then the checkpoint takes the old one's place: by this
   append, or shortly after it by a thread that does it for many (``publish_behind``);
5. the receipts are handed out.

A failure in 1 or 2 leaves the log as it was. A failure in 3 leaves it open whether the entries
are in the log; the next turn tells. A failure in 4 leaves them in the log and refuses the
append all the same: the log may tell of a decision that had no effect, never the other way
round. No size is ever signed with two roots that anybody could see.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from catena.audit import checkpoint as checkpoints
from catena.audit import merkle, tiles
from catena.audit.checkpoint import CheckpointMalformed
from catena.audit.folder import MAX_CHECKPOINT, LogFolder
from catena.audit.past import (
    LogDamaged,
    LogForked,
    grown,
    load_right_edge,
    require_contains,
    require_not_rewound,
    require_root,
)
from catena.audit.publisher import Publisher
from catena.audit.reader import LogReader, LogUnreadable
from catena.audit.storage import (
    Batch,
    CheckpointMoved,
    LogStorage,
    LogUnwritable,
    Sequencer,
    Turn,
    writing,
)
from catena.audit.tiles import CHECKPOINT, MAX_ENTRY
from catena.audit.tree import EMPTY_TREE, Growth
from catena.audit.writeahead import WriteAhead
from catena.errors import CatenaError, UsageError
from catena.formats.note import Checkpoint
from catena.formats.tlogproof import TlogProof
from catena.keys.signer import Signer

MAX_BATCH = 1024
MAX_UNPUBLISHED = 256
"""Appends that readers do not see yet; with more, appends wait for readers."""
MAX_SWAPS = 16


class BadEntry(UsageError):
    """An entry the log cannot hold."""

    code = "bad-entry"
    remedy = "An entry has 1 to 65535 bytes; keep large evidence elsewhere and log its digest."


class TransparencyLog:
    """A log open for writing. Safe to share between threads."""

    __slots__ = (
        "_closed",
        "_head",
        "_lock",
        "_published",
        "_published_size",
        "_publisher",
        "_publishing",
        "_queue",
        "_sequencer",
        "_signer",
        "_storage",
        "_told",
        "_tree",
        "_unpublished",
        "origin",
    )

    def __init__(
        self, sequencer: Sequencer, storage: LogStorage, signer: Signer, origin: str, head: str
    ) -> None:
        self.origin = origin
        self._sequencer = sequencer
        self._storage = storage
        self._signer = signer
        self._queue: deque[_Waiting] = deque()  # its append and popleft are atomic
        self._lock = threading.Lock()  # guards what follows, for a whole append
        self._closed = False
        self._tree = EMPTY_TREE
        self._head = head
        self._publishing = threading.Lock()  # guards what follows, and the storage
        self._unpublished: deque[tuple[Growth, str]] = deque()
        self._published: bytes | None = head.encode() or None  # the checkpoint that readers see
        self._published_size = 0
        self._publisher: Publisher | None = None
        self._told: list[Callable[[], None]] = []

    @classmethod
    def create(cls, folder: Path, origin: str, signer: Signer) -> Self:
        """Start an empty log in a folder.

        Raises ``LogExists``, ``BadOrigin``, ``UnusableLogKey``, ``LogUnwritable``.
        """
        place = LogFolder(folder)
        return cls.create_at(WriteAhead(place), place, origin, signer)

    @classmethod
    def create_at(
        cls, sequencer: Sequencer, storage: LogStorage, origin: str, signer: Signer
    ) -> Self:
        """Start an empty log; raises as ``create``."""
        checkpoints.require_origin(origin)
        text = checkpoints.sign(signer, origin, 0, merkle.EMPTY_ROOT)
        sequencer.found(text)
        with _closing_on_error(sequencer, storage):
            storage.swap_checkpoint(None, text.encode())
        return cls(sequencer, storage, signer, origin, text)

    @classmethod
    def open(cls, folder: Path, signer: Signer, *, remembered: str | None = None) -> Self:
        """Open a log in a folder, and repair what a crash left of its last appends.

        ``remembered`` is a checkpoint that was kept apart from the folder: the log must
        contain that tree. Raises ``LogMissing``, ``LogInUse``, ``CheckpointForged``,
        ``LogDamaged``, ``LogRewound``, ``LogForked``, ``LogUnwritable``.
        """
        place = LogFolder(folder)
        sequencer = WriteAhead(place)
        sequencer.open()
        log = cls.open_at(sequencer, place, signer, remembered=remembered)
        with _closing_on_error(sequencer, place), writing():
            place.set_leftovers_aside(log.size)
        return log

    @classmethod
    def open_at(
        cls,
        sequencer: Sequencer,
        storage: LogStorage,
        signer: Signer,
        *,
        remembered: str | None = None,
    ) -> Self:
        """Open a log from its right edge; raises as ``open``."""
        log = cls(sequencer, storage, signer, "", "")
        with _closing_on_error(sequencer, storage):
            with sequencer.turn() as turn:
                log._begin(turn, remembered)
            log.publish()
        return log

    def publish_behind(self, pause: float) -> None:
        """From now on let appends return before readers see them, ``pause`` seconds at most.

        They are durable all the same, and a log that cannot be published takes no entries.
        """
        self._publisher = Publisher(self.publish, pause)

    def on_publish(self, told: Callable[[], None]) -> None:
        """Call ``told`` whenever readers see more: from any thread, so it must be quick and not raise."""
        self._told.append(told)

    @property
    def reader(self) -> LogReader:
        """What readers see of the log, wherever it lies."""
        return self._storage

    @property
    def size(self) -> int:
        """How many entries are in the log, as far as this process has seen."""
        return self._tree.size

    def checkpoint(self) -> str:
        """The newest durable checkpoint this process has seen: a signed note."""
        return self._head

    def append(self, entries: Sequence[bytes]) -> tuple[TlogProof, ...]:
        """Add entries together; they are durable when this returns, each with its receipt.

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

    def require_writable(self) -> None:
        """See that an entry could be committed now. Raises ``LogUnwritable``, ``LogInconsistent``.

        What an append could not make certain, or readers do not see yet, is tried again first.
        """
        with self._lock:
            if self._closed:
                raise LogUnwritable("the log is closed")
            if self._publisher is None or self._publisher.failed:
                self.publish()
            with self._sequencer.turn():
                pass

    def close(self) -> None:
        """Let another process write to the log; this object cannot any more."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._publisher is not None:
                    self._publisher.stop()
                    self._publisher = None
                with contextlib.suppress(CatenaError):
                    with self._sequencer.turn() as turn:
                        self._follow(turn)
                    self.publish()
                    with self._sequencer.turn() as turn:
                        self._forget(turn)
                self._sequencer.close()
                self._storage.close()

    def _serve(self) -> None:
        """Commit what waits, and give everyone in that group an outcome."""
        group = [self._queue.popleft()]
        count = len(group[0].entries)
        while self._queue and count + len(self._queue[0].entries) <= MAX_BATCH:
            group.append(self._queue.popleft())
            count += len(group[-1].entries)
        try:
            receipts = self._commit([entry for one in group for entry in one.entries])
            for one in group:
                one.outcome = receipts[: len(one.entries)]
                receipts = receipts[len(one.entries) :]
        except LogUnreadable as error:
            for one in group:
                one.outcome = LogUnwritable(f"the log cannot be written: {error}")
        except CatenaError as error:
            for one in group:
                one.outcome = error
        except BaseException:
            for one in group:
                one.outcome = LogUnwritable("the append was interrupted")
            raise

    def _commit(self, entries: Sequence[bytes]) -> tuple[TlogProof, ...]:
        """The steps of the module's list."""
        if self._closed:
            raise LogUnwritable("the log is closed")
        late = len(self._unpublished) >= MAX_UNPUBLISHED
        if self._publisher is None or self._publisher.failed or late:
            self.publish()  # 1.
        with self._sequencer.turn() as turn:
            self._follow(turn)
            self._forget(turn)
            growth = self._tree.grow(entries)  # 2.
            root = growth.tree.frontier.root()
            text = checkpoints.sign(self._signer, self.origin, growth.tree.size, root)
            bundle = tiles.encode_bundle(entries)
            turn.commit(Batch(self._tree.size, len(entries), bundle, text))  # 3.
        self._advance(growth, text)
        if self._publisher is None:
            self.publish()  # 4.
        else:
            self._publisher.wake()
        return tuple(_receipts(growth, entries, text))  # 5.

    def _advance(self, growth: Growth, text: str) -> None:
        self._tree, self._head = growth.tree, text
        self._unpublished.append((growth, text))

    def _forget(self, turn: Turn) -> None:
        """Let go of what is published, unless more is being published just now."""
        if self._publishing.acquire(blocking=False):
            try:
                turn.forget(self._published_size)
            finally:
                self._publishing.release()

    def _follow(self, turn: Turn) -> None:
        """Take in what others committed, or what an unclear commit of our own turned out to be."""
        if turn.head != self._head:
            batches = [batch for batch in turn.staged if batch.end > self._tree.size]
            if batches and batches[0].start == self._tree.size:
                key = self._signer.public_key
                head = checkpoints.verify(turn.head.encode(), key, origin=self.origin)
                growth = grown(self._tree, batches)
                require_root(growth.tree, head)
                self._advance(growth, turn.head)
            else:
                self._load(turn, None)
        if self._published_size > self._tree.size:
            raise LogForked("a checkpoint is published that this log never had")

    def _begin(self, turn: Turn, remembered: str | None) -> None:
        """Open: load, hold against what is remembered, and publish what is not yet."""
        head = checkpoints.verify(turn.head.encode(), self._signer.public_key)
        self.origin = head.origin
        past = None
        if remembered is not None:
            key = self._signer.public_key
            past = checkpoints.verify(remembered.encode(), key, origin=head.origin)
            require_not_rewound(head, past)
        self._load(turn, past)

    def _load(self, turn: Turn, past: Checkpoint | None) -> None:
        """Begin from the right edge of what is published and the batches staged behind it."""
        key = self._signer.public_key
        head = checkpoints.verify(turn.head.encode(), key, origin=self.origin)
        content, published = self._read_published(turn.base is not None)
        if turn.base is None:
            base = published or Checkpoint(self.origin, 0, merkle.EMPTY_ROOT)
        else:
            base = checkpoints.verify(turn.base.encode(), key, origin=self.origin)
        tree = load_right_edge(self._storage, base)
        growth = grown(tree, [batch for batch in turn.staged if batch.end > base.size])
        require_root(growth.tree, head)
        for known, problem in ((published, LogDamaged), (past, LogForked)):
            if known is not None:
                require_contains(growth, known, self._storage, problem)
        self._tree, self._head = growth.tree, turn.head
        with self._publishing:
            self._published = content
            self._published_size = published.size if published else 0
            self._unpublished.clear()
            if growth.files or published is None:
                self._unpublished.append((growth, turn.head))

    def _read_published(self, repairable: bool) -> tuple[bytes | None, Checkpoint | None]:
        """The checkpoint that readers see; one that a crash tore counts as none, if repairable."""
        content = self._storage.read(CHECKPOINT, MAX_CHECKPOINT)
        if content is None:
            return None, None
        try:
            return content, checkpoints.verify(content, self._signer.public_key, origin=self.origin)
        except CheckpointMalformed:
            if not repairable:
                raise
            return content, None

    def publish(self) -> None:
        """Let readers see what is committed: tiles first, then the checkpoint over them.

        Of a tile that grew several times only the last version is stored. Raises
        ``LogUnwritable``, ``TileConflict``, ``LogForked``.
        """
        with self._publishing:
            waiting = tuple(self._unpublished)
            if not waiting:
                return
            self._publish(waiting)
        for told in self._told:
            told()

    def _publish(self, waiting: Sequence[tuple[Growth, str]]) -> None:
        latest = {
            (tile.level, tile.index): (tile, content)
            for growth, _ in waiting
            for tile, content in growth.files
        }
        self._storage.put(tuple(latest.values()))
        growth, text = waiting[-1]
        self._swap_checkpoint(growth.tree.size, text.encode())
        for _ in waiting:
            self._unpublished.popleft()
        for tile, _ in latest.values():
            if not tile.partial:
                self._storage.drop_partials(tile)

    def _swap_checkpoint(self, size: int, new: bytes) -> None:
        """Publish a checkpoint, unless another server has published one as new or newer."""
        for _ in range(MAX_SWAPS):
            try:
                if self._published != new:
                    self._storage.swap_checkpoint(self._published, new)
                self._published, self._published_size = new, size
            except CheckpointMoved as moved:
                content, published = self._read_published(repairable=False)
                if published is None:
                    raise LogForked("the published checkpoint is gone") from moved
                if published.size > size and not self._sequencer.shared:
                    raise LogForked("the published checkpoint is not one of this log") from moved
                self._published, self._published_size = content, published.size
            if self._published_size >= size:
                return
        raise LogUnwritable("the checkpoint changes faster than it can be published")


@dataclass(slots=True, eq=False)
class _Waiting:
    """One call of ``append`` until it is served: not frozen, its outcome comes later."""

    entries: tuple[bytes, ...]
    outcome: tuple[TlogProof, ...] | CatenaError | None = None


def _receipts(growth: Growth, entries: Sequence[bytes], checkpoint: str) -> Iterator[TlogProof]:
    for (index, path), entry in zip(growth.proofs(), entries, strict=True):
        yield TlogProof(index, tuple(path), checkpoint, entry)


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


@contextlib.contextmanager
def _closing_on_error(sequencer: Sequencer, storage: LogStorage) -> Iterator[None]:
    """Give the right to write back if opening the log fails."""
    try:
        yield
    except BaseException:
        sequencer.close()
        storage.close()
        raise
