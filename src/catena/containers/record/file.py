"""The record file: one writer, private, nothing behind the last whole event.

::

    FOLDER (0700)/
        record.cel           this boot's record (0600)
        record.lock          held by the gate that writes it
        record-BOOT.cel      records of earlier boots, the latest ``MAX_ARCHIVES``

What ``append`` does is all or nothing, as long as the machine lives: an error takes the file back to
where it was. If not even that goes, it raises ``RecorderStopped``.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catena.containers.record.failure import (
    ExposedRecord,
    RecorderStopped,
    RecordInUse,
    RecordUnwritable,
)
from catena.containers.record.refused import RecordMismatch
from catena.containers.record.replay import RecordedEvent, read_record
from catena.formats.cel import MAX_LOG, complete_tlv

MAX_ARCHIVES = 16
_BOOT_ID = re.compile(r"[0-9a-f-]{1,64}")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK


class RecordFile:
    """The record at ``path``, made if need be, locked; ``size`` is how long this writer left it.

    Raises ``RecordInUse``, ``ExposedRecord``, ``RecordUnwritable``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _open_own(path.with_suffix(".lock"))
        try:
            _lock(self._lock, path)
            self._file = _open_own(path)
        except BaseException:
            os.close(self._lock)
            raise
        self.size = os.fstat(self._file).st_size
        _sync_folder(path.parent)

    def close(self) -> None:
        """Let another gate write."""
        os.close(self._file)
        os.close(self._lock)

    def read(self) -> bytes:
        """All of it. Raises ``RecordMismatch`` if it is longer than a gate writes."""
        with _unwritable(self.path):
            data = os.pread(self._file, MAX_LOG + 1, 0)
        if len(data) > MAX_LOG:
            raise RecordMismatch(f"{self.path} is too long", expected=f"at most {MAX_LOG} bytes")
        return data

    def append(self, data: bytes) -> None:
        """Make ``data`` durable behind what is there. Raises ``RecordUnwritable``: nothing was written.

        Raises ``RecordMismatch`` if somebody else wrote, replaced or removed the file meanwhile.
        """
        found = os.fstat(self._file)
        if (found.st_size, found.st_nlink) != (self.size, 1):
            raise RecordMismatch(
                f"somebody else changed {self.path}",
                expected=f"{self.size} bytes, 1 link",
                got=f"{found.st_size} bytes, {found.st_nlink}",
            )
        try:
            with _unwritable(self.path):
                self._write(data)
                os.fdatasync(self._file)
        except RecordUnwritable:
            self.cut(self.size)
            raise
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Drop what is behind ``size``. Raises ``RecorderStopped``."""
        try:
            os.ftruncate(self._file, size)
            os.fdatasync(self._file)
        except OSError as error:
            raise RecorderStopped(
                f"cannot take {self.path} back to its last event", got=error.strerror
            ) from error
        self.size = size

    def archive(self, boot: str) -> None:
        """Put what is there aside as another boot's, and begin an empty one."""
        with _unwritable(self.path):
            self.path.rename(_free(self.path, boot))
            earlier, self._file = self._file, _open_own(self.path)
            self.size = 0
            os.close(earlier)
            for old in archives(self.path)[MAX_ARCHIVES:]:
                old.unlink()
            _sync_folder(self.path.parent)

    def _write(self, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], self.size + written)


def read_whole(path: Path) -> bytes:
    """The whole events in a record file, which a gate may be writing at this moment.

    Raises ``OSError``, and ``FormatError`` for what cannot be a record.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_LOG + 1)
    return data[: complete_tlv(data)]


def read_events(path: Path) -> tuple[RecordedEvent, ...]:
    """The whole events in a record file; nothing is compared with the TPM.

    Raises what ``read_whole`` does, and ``RecordMismatch`` for an event that was altered.
    """
    return read_record(read_whole(path))


def archives(path: Path) -> list[Path]:
    """Records of earlier boots beside the one at ``path``, the latest first."""
    found = path.parent.glob(f"{path.stem}-*{path.suffix}")
    return sorted(found, key=lambda one: one.stat().st_mtime_ns, reverse=True)


def _free(path: Path, boot: str) -> Path:
    """A name for an archive that nothing has; ``boot`` is *untrusted*."""
    name = boot if _BOOT_ID.fullmatch(boot) else "unknown"
    for number in range(MAX_ARCHIVES + 1):
        more = f"-{number}" if number else ""
        place = path.with_name(f"{path.stem}-{name}{more}{path.suffix}")
        if not place.exists():
            break
    return place


def _open_own(path: Path) -> int:
    """A private file in a folder of one's own, made if need be."""
    with _unwritable(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_own(path.parent, path.parent.lstat(), stat.S_IFDIR, _OTHERS_WRITE)
        if path.is_symlink():
            raise ExposedRecord(f"{path} is a link")
        descriptor = os.open(path, _FLAGS, 0o600)
    try:
        _require_own(path, os.fstat(descriptor), stat.S_IFREG, _OTHERS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_own(path: Path, found: os.stat_result, kind: int, forbidden: int) -> None:
    """Raises ``ExposedRecord`` for another kind of file, of another user, or with ``forbidden`` bits."""
    ours = found.st_uid == os.geteuid()
    if stat.S_IFMT(found.st_mode) != kind or not ours or found.st_mode & forbidden:
        raise ExposedRecord(
            f"{path} is not the gate's own",
            expected=f"of user {os.geteuid()}, with none of the permissions {forbidden:03o}",
            got=f"{stat.filemode(found.st_mode)} of user {found.st_uid}",
        )


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RecordInUse(f"another gate writes {path}") from error


def _sync_folder(folder: Path) -> None:
    """Make names in ``folder`` durable."""
    with _unwritable(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecordUnwritable(f"cannot write {path}", got=error.strerror) from error
