"""What a witness remembers: for each log the newest checkpoint that it verified.

::

    lock                       held while a witness runs: one process signs with one memory
    <SHA-256 of origin>        the log's checkpoint, a signed note
    forks/<…>.seen, .request   two checkpoints of one size that a log signed: proof against it

A checkpoint is written beside its predecessor, synchronised, renamed over it, and the folder is
synchronised before ``advance`` returns; the cosignature is made after that. What a killed
witness may have put in place without waiting for the disk is written again before it is built on.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catena.audit.folder import replace_file, sync_folder
from catena.errors import FormatError, Unavailable
from catena.formats import note
from catena.formats.addcheckpoint import MAX_REQUEST
from catena.formats.note import Checkpoint, Note

LOCK = "lock"
FORKS = "forks"
MAX_FORKS = 64
"""Proofs kept; more of them prove nothing new."""
MAX_RECORD = MAX_REQUEST


class WitnessInUse(Unavailable):
    """Another process witnesses with this memory."""

    code = "witness-in-use"
    remedy = "Stop the other `catena audit witness run` first; two would sign two histories."


class WitnessDamaged(Unavailable):
    """What the witness remembers cannot be read; it signs nothing for this log."""

    code = "witness-damaged"
    remedy = "Restore the file from the newest copy; an older one would let a log be rewound."


class WitnessUnwritable(Unavailable):
    """The witness cannot remember, so it does not sign."""

    code = "witness-unwritable"
    remedy = "Give the witness's disk space and make its folder writable."


class WitnessState:
    """One folder, held by one process. ``holding`` is the lock of one log's record."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settled: set[str] = set()  # records known to be on disk
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
            self._lock_file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise WitnessUnwritable(f"cannot open the memory: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock_file)
            raise WitnessInUse("another process uses this witness's memory") from error

    def close(self) -> None:
        """Let another process witness."""
        os.close(self._lock_file)

    @contextmanager
    def holding(self, origin: str) -> Iterator[None]:
        """Nobody else compares and replaces this log's record meanwhile."""
        with self._guard:
            lock = self._locks.setdefault(origin, threading.Lock())
        with lock:
            yield

    def latest(self, origin: str) -> Checkpoint | None:
        """The newest checkpoint remembered, durable; None if there never was one.

        Raises ``WitnessDamaged`` and ``WitnessUnwritable``.
        """
        found = self._read(origin)
        if found is None:
            return None
        signed, checkpoint = found
        if origin not in self._settled:
            self._write(origin, signed)
        return checkpoint

    def advance(self, origin: str, signed: Note) -> None:
        """Remember a checkpoint that was verified to follow from the latest.

        On disk when this returns. Raises ``WitnessUnwritable``: it may be remembered or not.
        """
        self._write(origin, signed)

    def keep_fork(self, origin: str, checkpoint: Checkpoint, request: bytes) -> Path | None:
        """Keep two checkpoints of one size as proof; where, unless there are enough of them.

        Raises ``WitnessUnwritable``.
        """
        folder = self._folder / FORKS
        stem = f"{_name(origin)[:16]}-{checkpoint.size}-{checkpoint.root.hex()[:16]}"
        try:
            seen = self._path(origin).read_bytes()
            folder.mkdir(mode=0o700, exist_ok=True)
            if len(list(folder.iterdir())) >= 2 * MAX_FORKS:
                return None
            for ending, content in (("seen", seen), ("request", request)):
                replace_file(folder / f"{stem}.{ending}", content, 0o600)
        except OSError as error:
            raise WitnessUnwritable(f"cannot keep the proof: {error.strerror}") from error
        return folder / f"{stem}.request"

    def _path(self, origin: str) -> Path:
        return self._folder / _name(origin)

    def _read(self, origin: str) -> tuple[Note, Checkpoint] | None:
        try:
            with self._path(origin).open("rb") as file:
                content = file.read(MAX_RECORD + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WitnessDamaged(f"cannot read the record: {error.strerror}") from error
        try:
            signed = note.parse(content)
            checkpoint = note.parse_checkpoint(signed.text)
        except FormatError as error:
            raise WitnessDamaged(f"the record is no checkpoint: {error}") from error
        if checkpoint.origin != origin:
            raise WitnessDamaged("the record is of another log")
        return signed, checkpoint

    def _write(self, origin: str, signed: Note) -> None:
        self._settled.discard(origin)
        try:
            replace_file(self._path(origin), signed.encode().encode(), 0o600)
        except OSError as error:
            raise WitnessUnwritable(f"cannot remember: {error.strerror}") from error
        self._settled.add(origin)


def _name(origin: str) -> str:
    return hashlib.sha256(origin.encode()).hexdigest()
