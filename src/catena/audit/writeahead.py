"""The sequencer of a log in a folder: one process, one file, one wait for the disk per append.

``write-ahead`` begins with the checkpoint that it grows from, whose tiles are on disk for
certain. Behind it is a record for each batch::

    magic, uint32 length, base checkpoint
    uint32 length, uint32 CRC-32 of the rest, uint64 start, uint32 count, uint32 length, bundle,
    signed checkpoint

A record is there as soon as the file is synchronised. Tiles and checkpoint follow without
waiting for the disk: what a power failure takes of them is made again from the records, and no
record is believed that does not lead to the root its checkpoint signs (``audit.log``). When
the file has grown, everything is synchronised and a new one begins; a log that was closed has
none.

A record that may or may not be on disk is written again before anything else: its checkpoint
is signed, and its size must never be signed again with another root.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from catena.audit.folder import WRITE_AHEAD, LogFolder
from catena.audit.storage import Batch, LogUnwritable, writing
from catena.errors import LogInconsistent

FULL = 8 * 1024 * 1024
"""Bytes of records after which a new file begins."""
MANY = 1000
"""Files that wait to be synchronised after which a new file begins."""
ROOM = 256 * 1024
"""Bytes of zeros that are written ahead of the records, so that a record changes no file size."""
_MAX_FILE = 256 * 1024 * 1024
_MAGIC = b"catena write-ahead 1\n"
_LENGTH = struct.Struct(">I")
_FRAME = struct.Struct(">II")
_RECORD = struct.Struct(">QII")


class WriteAheadDamaged(LogInconsistent):
    """The write-ahead file cannot be read."""

    code = "write-ahead-damaged"
    remedy = (
        "Restore the log's folder from a copy. Without the file `write-ahead` the log ends at "
        "its checkpoint, and the server refuses it if the database knows of later entries."
    )


class WriteAhead:
    """A ``Sequencer`` over one folder, and its only ``Turn``."""

    shared = False

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        self._lock_file = -1
        self._file = -1
        self._offset = 0  # where the next record goes
        self._room = 0  # up to where the file holds zeros
        self._base = ""
        self._head = ""
        self._published = ""  # newest checkpoint known to be published
        self._staged: deque[Batch] = deque()
        self._unclear: Batch | None = None  # may be on disk

    def found(self, checkpoint: str) -> None:
        """Begin a log in an empty folder. Raises ``LogExists``, ``LogUnwritable``."""
        with writing():
            self._folder.path.mkdir(parents=True, exist_ok=True)
            self._folder.require_unused()
            self._lock_file = self._folder.lock()
            with self._closing_on_error():
                self._folder.require_unused()  # another process may have been faster to the lock
                self._begin(checkpoint)
                self._head = checkpoint

    def open(self) -> None:
        """Become the folder's writer. Raises ``LogMissing``, ``LogInUse``, ``WriteAheadDamaged``."""
        if self._folder.read(WRITE_AHEAD, 0) is None:
            self._folder.read_checkpoint()  # before a lock file is made where no log is
        with writing():
            self._lock_file = self._folder.lock()
        with self._closing_on_error(), writing():
            content = self._folder.read(WRITE_AHEAD, _MAX_FILE)
            if content is None:  # the log was closed, and everything is in its tiles
                self._head = self._folder.read_checkpoint().decode(errors="replace")
                self._begin(self._head)
            else:
                self._read(content)

    @property
    def base(self) -> str:
        """The checkpoint from which ``staged`` begins after opening; its tiles are on disk."""
        return self._base

    @property
    def head(self) -> str:
        """The newest checkpoint."""
        return self._head

    @property
    def staged(self) -> Sequence[Batch]:
        """What was committed and not forgotten."""
        return tuple(self._staged)

    @contextlib.contextmanager
    def turn(self) -> Iterator[WriteAhead]:
        """This process always has its turn, once it is certain what the last one left."""
        if self._lock_file < 0:
            raise LogUnwritable("the log is closed")
        if self._unclear is not None:
            self.commit(self._unclear)
        yield self

    def commit(self, batch: Batch) -> None:
        """Write a record and wait for the disk. Raises ``LogUnwritable``."""
        record = _encode(batch)
        with writing():
            self._make_room(len(record) + _LENGTH.size)
            self._unclear = batch
            _write(self._file, record, self._offset)
            os.fdatasync(self._file)
        self._offset += len(record)
        self._staged.append(batch)
        self._head = batch.checkpoint
        self._unclear = None

    def forget(self, size: int) -> None:
        """Drop what is published; begin a new file when this one is full. Raises ``LogUnwritable``.

        Nothing may be published meanwhile.
        """
        while self._staged and self._staged[0].end <= size:
            self._published = self._staged.popleft().checkpoint
        if self._offset >= FULL or self._folder.unsynced >= MANY:
            with writing():
                self._renew()

    def close(self) -> None:
        """Let another process write. What is published is on disk, if the disk lets it."""
        if self._lock_file >= 0:
            with contextlib.suppress(OSError):
                if not self._staged and self._unclear is None:
                    self._folder.sync()
                    self._folder.remove_write_ahead()
                    self._folder.base_size = _size(self._head)
                    self._folder.tidy()
            self._release()

    def _renew(self) -> None:
        """Synchronise what is published, and begin a new file from it. Raises ``OSError``."""
        self._folder.sync()
        self._begin(self._published, self._staged)
        self._folder.tidy()

    def _begin(self, checkpoint: str, batches: Iterable[Batch] = ()) -> None:
        """A file with these records takes the place of the one there is. Raises ``OSError``."""
        text = checkpoint.encode()
        content = _MAGIC + _LENGTH.pack(len(text)) + text + b"".join(map(_encode, batches))
        file = self._folder.replace_write_ahead(content)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._offset, self._room = file, len(content), len(content)
        self._base = self._published = checkpoint
        self._folder.base_size = _size(checkpoint)

    def _make_room(self, size: int) -> None:
        """Zeros for the next record: a full disk shows here, where nothing is signed yet."""
        if self._offset + size > self._room:
            zeros = bytes(max(ROOM, size))
            _write(self._file, zeros, self._room)
            self._room += len(zeros)

    def _read(self, content: bytes) -> None:
        """Take up the records that are there; the last may have been cut short by a crash."""
        start = len(_MAGIC) + _LENGTH.size
        end = start + int.from_bytes(content[len(_MAGIC) : start], "big")
        if not content.startswith(_MAGIC) or not start < end <= len(content):
            raise WriteAheadDamaged("the write-ahead file has no beginning")
        self._base = self._published = self._head = content[start:end].decode(errors="replace")
        while (batch := _decode(content, end)) is not None:
            self._staged.append(batch)
            self._head = batch.checkpoint
            end += len(_encode(batch))
        self._file = self._folder.open_write_ahead()
        self._offset = end
        os.ftruncate(self._file, end)  # what a crash cut short is gone for good
        os.fsync(self._file)
        self._room = end
        self._folder.base_size = _size(self._base)
        self._folder.recovering = bool(self._staged)

    @contextlib.contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        for descriptor in (self._file, self._lock_file):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock_file = -1


def recorded(path: Path) -> tuple[str, ...]:
    """The checkpoints, *untrusted*, of a write-ahead file that another process may be writing."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE)
    except OSError:
        return ()
    start = len(_MAGIC) + _LENGTH.size
    end = start + int.from_bytes(content[len(_MAGIC) : start], "big")
    if not content.startswith(_MAGIC) or not start < end <= len(content):
        return ()
    found = [content[start:end].decode(errors="replace")]
    while (batch := _decode(content, end)) is not None:
        found.append(batch.checkpoint)
        end += len(_encode(batch))
    return tuple(found)


def _encode(batch: Batch) -> bytes:
    body = (
        _RECORD.pack(batch.start, batch.count, len(batch.bundle))
        + batch.bundle
        + batch.checkpoint.encode()
    )
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def _decode(content: bytes, offset: int) -> Batch | None:
    """The record at ``offset``; None at the end, and for one that is not complete."""
    start = offset + _FRAME.size
    if start > len(content):
        return None
    length, crc = _FRAME.unpack_from(content, offset)
    body = content[start : start + length]
    if not _RECORD.size < length == len(body) or zlib.crc32(body) != crc:
        return None
    first, count, size = _RECORD.unpack_from(body)
    end = _RECORD.size + size
    return Batch(first, count, body[_RECORD.size : end], body[end:].decode(errors="replace"))


def _write(descriptor: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _size(checkpoint: str) -> int:
    """The size in a checkpoint, still *untrusted*; 0 if it is none."""
    lines = checkpoint.split("\n", 2)
    return int(lines[1]) if len(lines) == 3 and lines[1].isdecimal() else 0
