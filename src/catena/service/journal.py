"""Log first, act second: the one way by which a decision takes effect.

::

    with journal.deciding(node_id):          # nobody else decides about this node
        …read, decide…
        recorded = journal.record(entry, …)  # durable, or LogUnwritable: nothing happens
        with journal.effect() as rows:       # one transaction
            …write…

If the transaction fails, the log tells of a decision that had no effect; the other way round
cannot happen. The effect also remembers the log's checkpoint, so that a log folder restored
from an older copy is noticed when the server starts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from catena.audit.entries import Entry
from catena.audit.leaf import seal_entry
from catena.audit.log import MAX_BATCH, TransparencyLog
from catena.formats.dsse import Statement
from catena.formats.tlogproof import TlogProof
from catena.keys.envelope import seal
from catena.keys.signer import PublicKey, Signer
from catena.service.pseudonyms import Pseudonyms
from catena.store.database import Database, Transaction
from catena.store.logstate import LogState

_STRIPES = 1024


class Journal:
    """The audit log and the database, in that order. Safe to share between threads."""

    def __init__(
        self, log: TransparencyLog, signer: Signer, database: Database, pseudonyms: Pseudonyms
    ) -> None:
        self._log = log
        self._signer = signer
        self._database = database
        self._pseudonyms = pseudonyms
        self._appended: list[Callable[[], None]] = []
        # Each guards the decisions about the subjects that hash to it, from read to effect.
        self._stripes = tuple(threading.RLock() for _ in range(_STRIPES))

    @contextmanager
    def deciding(self, subject: str) -> Iterator[None]:
        """Keep other threads of this process from deciding about ``subject`` meanwhile.

        Other replicas are kept out by the database: compare-and-swap, unique columns.
        """
        with self._stripes[hash(subject) % _STRIPES]:
            yield

    @contextmanager
    def deciding_all(self, subjects: Iterable[str]) -> Iterator[None]:
        """As ``deciding``, about several subjects that are decided about together."""
        with ExitStack() as held:
            # Always in the same order, so that no two threads wait for each other.
            for stripe in sorted({hash(subject) % _STRIPES for subject in subjects}):
                held.enter_context(self._stripes[stripe])
            yield

    def on_append(self, appended: Callable[[], None]) -> None:
        """Call ``appended`` after each append: it must be quick and must not raise."""
        self._appended.append(appended)

    @property
    def public_key(self) -> PublicKey:
        """The key under which entries, and what ``seal`` signed, verify."""
        return self._signer.public_key

    def seal(self, statement: Statement) -> bytes:
        """A statement in an envelope signed by the log key."""
        return seal(self._signer, statement).encode()

    def record(self, *entries: Entry) -> tuple[TlogProof, ...]:
        """Append entries together; durable when this returns. Raises ``LogUnwritable``.

        The receipts are what whoever was decided about gets.
        """
        return self.append(self.sealed(entries))

    def sealed(self, entries: Iterable[Entry]) -> tuple[bytes, ...]:
        """Entries as ``append`` takes them. Raises ``UnloggableEntry``.

        Where they name a person, the log gets a pseudonym.
        """
        masked = map(self._pseudonyms.masked, entries)
        return tuple(seal_entry(self._signer, entry) for entry in masked)

    def append(self, leaves: Sequence[bytes]) -> tuple[TlogProof, ...]:
        """Append sealed entries, as many as there are; durable when this returns.

        Raises ``LogUnwritable``: then some of them may be in the log, and none counts.
        """
        receipts: list[TlogProof] = []
        for start in range(0, len(leaves), MAX_BATCH):
            receipts += self._log.append(leaves[start : start + MAX_BATCH])
        for appended in self._appended:
            appended()
        return tuple(receipts)

    @contextmanager
    def effect(self) -> Iterator[Transaction]:
        """The transaction in which what was recorded takes effect."""
        with self._database.transaction() as rows:
            yield rows
            # Last, because all replicas want this row: it is theirs again with the commit.
            checkpoint = self._log.checkpoint()
            rows.log_states.advance(
                LogState(origin=self._log.origin, size=tree_size(checkpoint), checkpoint=checkpoint)
            )


def tree_size(checkpoint: str) -> int:
    """The tree size in a checkpoint that our own log made (C2SP tlog-checkpoint, line 2)."""
    return int(checkpoint.split("\n", 2)[1])
