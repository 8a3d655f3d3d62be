"""The log's folder on disk: tiles and checkpoint, the write lock, leftovers of a crash.

A tile is written under its final name before the checkpoint that covers it; the checkpoint is
replaced by rename, so a reader sees the old one or the new one. Neither waits for the disk:
``audit.writeahead`` has what they are made of, until ``sync`` has put them there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from catena.audit import tiles
from catena.audit.reader import LogUnreadable
from catena.audit.storage import CheckpointMoved, TileConflict, writing
from catena.audit.tiles import CHECKPOINT, TILE_WIDTH, Tile
from catena.errors import NotFound, Unavailable, UsageError

MAX_CHECKPOINT = 1_000_000
LOCK = "lock"
UNCOMMITTED = "uncommitted"
"""Where tiles beyond the checkpoint are moved when a log is opened: evidence, not log."""
WRITE_AHEAD = "write-ahead"
"""Entries whose tiles may not be on disk yet (``audit.writeahead``)."""
_NEW_CHECKPOINT = "checkpoint.new"
_NEW_WRITE_AHEAD = "write-ahead.new"
OWN_FILES = frozenset({CHECKPOINT, LOCK, WRITE_AHEAD, _NEW_CHECKPOINT, _NEW_WRITE_AHEAD})


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


class LogFolder:
    """Paths, reads and durable writes below one folder."""

    __slots__ = ("_fresh", "_kept", "_known", "_unsynced", "base_size", "path", "recovering")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.base_size = 0  # the tree that a repair begins with: its tiles stay
        self.recovering = False
        self._known: set[Path] = set()  # folders that exist
        self._fresh: set[Path] = set()  # folders that have names which may not be on disk
        self._unsynced: dict[Path, None] = {}  # files that may not be on disk
        self._kept: set[Tile] = set()  # full tiles with a partial version

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

    def put(self, files: Sequence[tuple[Tile, bytes]]) -> None:
        """Write tiles without waiting for the disk. Raises ``TileConflict``, ``LogUnwritable``.

        While a crash is repaired, what lies in a tile's place is its torn beginning or evidence:
        it is set aside, and so that none is taken for the log's, older partial versions go.
        """
        with writing():
            for tile, content in files:
                self._put(tile, content)

    def _put(self, tile: Tile, content: bytes) -> None:
        path = self.path / tile.path
        self._make_folder(path.parent)
        if self.recovering and tile.partial:
            self._drop_partials(tile, keep=tile.width)
        if (self.recovering or not tile.partial) and path not in self._unsynced:
            there = self._content(tile.path)
            if there is not None and there != content:
                if not self.recovering:
                    raise TileConflict("a full tile has other content", got=tile.path)
                self.set_aside(tile.path, self.base_size)
        self._unsynced[path] = None
        _write(path, content)

    def swap_checkpoint(self, old: bytes | None, new: bytes) -> None:
        """Put a checkpoint in the old one's place without waiting for the disk.

        Raises ``CheckpointMoved``, ``LogUnwritable``.
        """
        there = self.read(CHECKPOINT, MAX_CHECKPOINT)
        if there != old:
            raise CheckpointMoved("another checkpoint is published")
        path = self.path / _NEW_CHECKPOINT
        with writing():
            _write(path, new)
            path.rename(self.path / CHECKPOINT)

    @property
    def unsynced(self) -> int:
        """How many files may not be on disk."""
        return len(self._unsynced)

    def sync(self) -> None:
        """Wait until all that was put is on disk. Raises ``OSError``."""
        for path in self._unsynced:
            _sync_file(path)
        for folder in {path.parent for path in self._unsynced} | self._fresh:
            if folder.is_dir():
                sync_folder(folder)
        _sync_file(self.path / CHECKPOINT)
        sync_folder(self.path)
        self._unsynced.clear()
        self._fresh.clear()
        self.recovering = False

    def replace_write_ahead(self, content: bytes) -> int:
        """Put a new write-ahead file in place, on disk; its descriptor. Raises ``OSError``."""
        path = self.path / _NEW_WRITE_AHEAD
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, content)
            os.fsync(descriptor)
            path.rename(self.path / WRITE_AHEAD)
            sync_folder(self.path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open_write_ahead(self) -> int:
        """The write-ahead file that is there. Raises ``OSError``."""
        return os.open(self.path / WRITE_AHEAD, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def remove_write_ahead(self) -> None:
        """Remove the write-ahead file, once nothing depends on it. Raises ``OSError``."""
        (self.path / WRITE_AHEAD).unlink(missing_ok=True)
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

    def set_leftovers_aside(self, size: int) -> None:
        """Clear what a crashed append left beyond the log's ``size``, lest it be mixed up.

        Raises ``OSError``.
        """
        (self.path / _NEW_CHECKPOINT).unlink(missing_ok=True)
        (self.path / _NEW_WRITE_AHEAD).unlink(missing_ok=True)
        for name in tuple(self.files()):
            if name.startswith("tile/") and tiles.is_beyond(name, size):
                self.set_aside(name, size)

    def drop_partials(self, tile: Tile) -> None:
        """Remove the partial versions of a full tile, but for one that a repair would need."""
        with contextlib.suppress(OSError):
            self._drop_partials(tile)

    def tidy(self) -> None:
        """Remove the partial tiles that were kept for a repair."""
        for tile in self._kept:
            with contextlib.suppress(OSError):
                self._drop_partials(tile)
        self._kept = {tile for tile in self._kept if self._needed(tile)}

    def close(self) -> None:
        """Nothing is open."""

    def _drop_partials(self, tile: Tile, keep: int = 0) -> None:
        path = self.path / tile.folder
        if not path.is_dir():
            return
        wanted = {str(self._needed(tile)), str(keep)}
        rest = False
        for partial in tuple(path.iterdir()):
            if partial.name in wanted:
                rest = True
            else:
                partial.unlink()
                self._unsynced.pop(partial, None)
        if self._needed(tile):
            self._kept.add(tile)
        elif not rest and not keep:
            path.rmdir()
            self._known.discard(path)

    def _needed(self, tile: Tile) -> int:
        """The width of the partial version that the tree of ``base_size`` has, or 0."""
        return tiles.width_at(tile.level, tile.index, self.base_size) % TILE_WIDTH

    def _content(self, name: str) -> bytes | None:
        try:
            return self.read(name, tiles.MAX_BUNDLE)
        except LogUnreadable:
            return b""  # something is there, and it is no tile

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
            # Also for a folder that was there: the process that made it may have died before.
            self._fresh.add(path.parent)
        self._known.add(path)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
    )
    try:
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_file(path: Path) -> None:
    """Wait for a file's content, if the file is still there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put ``content`` in a file's place, at once; on disk, with its name, when this returns.

    A crash leaves the old file or the new one. Raises ``OSError``.
    """
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(
        new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode
    )
    with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor has no path
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
