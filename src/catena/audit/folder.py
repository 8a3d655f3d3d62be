"""The log's folder on disk: durable writes, the write lock, leftovers of a crash.

A tile is written under its final name and synchronised, with every directory on its path,
before the checkpoint that covers it. Nothing refers to a tile until that checkpoint is in
place, so what a crash leaves half-written is beyond the checkpoint and is rewritten.
The checkpoint itself is replaced by rename: a reader sees the old one or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from catena.audit.tiles import CHECKPOINT
from catena.errors import NotFound, Unavailable, UsageError

MAX_CHECKPOINT = 1_000_000
LOCK = "lock"
UNCOMMITTED = "uncommitted"
"""Where tiles beyond the checkpoint are moved when a log is opened: evidence, not log."""
_NEW_CHECKPOINT = "checkpoint.new"
OWN_FILES = frozenset({CHECKPOINT, LOCK, _NEW_CHECKPOINT})


class LogInUse(Unavailable):
    """Another process writes to this log."""

    code = "log-in-use"
    remedy = "Stop the other `catena server run` first; a log has exactly one writer."


class LogMissing(NotFound):
    """There is no log in this folder."""

    code = "log-missing"
    remedy = "Check the path; `catena server init` creates a log."


class LogExists(UsageError):
    """There is a log in this folder already."""

    code = "log-exists"
    remedy = "Choose an empty folder; a log is never started over."


class LogUnreadable(Unavailable):
    """A file of the log cannot be read by this process."""

    code = "log-unreadable"
    remedy = "Check the permissions of the log's folder and its disk."


class LogFolder:
    """Paths, reads and durable writes below one folder."""

    __slots__ = ("_known", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[Path] = set()

    def read(self, name: str, limit: int) -> bytes | None:
        """The content of a file, None if it is not there; at most ``limit`` + 1 bytes of it.

        Raises ``LogUnreadable``.
        """
        try:
            # Non-blocking, so that a pipe in a tile's place cannot stop the reader for ever.
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LogUnreadable(f"cannot open {name}: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise LogUnreadable(f"{name} is not a regular file")
            return os.read(descriptor, min(status.st_size, limit + 1))
        except OSError as error:
            raise LogUnreadable(f"cannot read {name}: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def write(self, name: str, content: bytes) -> None:
        """Write a file and wait until it and its name are on disk. Raises ``OSError``."""
        path = self.path / name
        self._make_folder(path.parent)
        _write_synced(path, content)
        sync_folder(path.parent)

    def replace_checkpoint(self, content: bytes) -> None:
        """Put a new checkpoint in the old one's place. Raises ``OSError``.

        After an error it is unknown which of the two a reader, or the next boot, will see.
        """
        new = self.path / _NEW_CHECKPOINT
        _write_synced(new, content)
        new.replace(self.path / CHECKPOINT)
        sync_folder(self.path)

    def settle_checkpoint(self) -> None:
        """Make the checkpoint that is in place durable, whatever its writer died of.

        One that was not put in place is removed: nobody saw it. Raises ``OSError``.
        """
        (self.path / _NEW_CHECKPOINT).unlink(missing_ok=True)
        sync_folder(self.path)

    def read_checkpoint(self) -> bytes:
        """The checkpoint file. Raises ``LogMissing``."""
        content = self.read(CHECKPOINT, MAX_CHECKPOINT)
        if content is None:
            raise LogMissing("there is no checkpoint in this folder", got=str(self.path))
        return content

    def require_unused(self) -> None:
        """Refuse a folder that holds anything. Raises ``LogExists``."""
        if any(entry.name != LOCK for entry in self.path.iterdir()):
            raise LogExists("the folder of a new log must be empty", got=str(self.path))

    def files(self) -> Iterator[str]:
        """Every file below the folder as a relative path, sorted; symbolic links too."""
        for folder, folders, names in os.walk(self.path):
            folders.sort()
            here = Path(folder)
            links = [name for name in folders if (here / name).is_symlink()]
            for name in sorted(names + links):
                yield (here / name).relative_to(self.path).as_posix()

    def set_aside(self, name: str, size: int) -> None:
        """Move a tile beyond the checkpoint of ``size`` out of the log, keeping it as evidence."""
        target = self.path / UNCOMMITTED / f"{size}-{name.replace('/', '-')}"
        self._make_folder(target.parent)
        (self.path / name).replace(target)
        sync_folder(target.parent)
        sync_folder((self.path / name).parent)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there, and wait until that is on disk. Raises ``OSError``."""
        path = self.path / name
        if path.parent.is_dir():
            path.unlink(missing_ok=True)
            sync_folder(path.parent)

    def drop_partials(self, folder: str) -> None:
        """Remove the partial versions of a tile that is full now."""
        path = self.path / folder
        if path.is_dir():
            for partial in path.iterdir():
                partial.unlink()
            path.rmdir()
            self._known.discard(path)

    def lock(self) -> int:
        """Become the log's only writer; the descriptor that holds the lock.

        Raises ``LogInUse``.
        """
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise LogInUse("another process has this log open for writing") from error
        return descriptor

    def _make_folder(self, path: Path) -> None:
        """Create a folder with its parents; each new name is on disk when this returns."""
        if path in self._known:
            return
        if path != self.path:
            self._make_folder(path.parent)
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o755)
            # Also for a folder that was there: the process that made it may have died before this.
            sync_folder(path.parent)
        self._known.add(path)


def _write_synced(path: Path, content: bytes) -> None:
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
    )
    with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor has no path
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
