"""Walking a folder on disk: what its files are (hashed), or only whether they may have changed (stat).

Nothing is ever opened by a path of more than one part: each folder is opened in its parent, without
following links, so that no link leads out of the tree, whoever swaps what meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter

from catena.containers.rootfs.refusals import ForeignMount, UnknownLayers, UnsteadyTree
from catena.containers.rootfs.tree import (
    ATTRIBUTES,
    MAX_DEPTH,
    MAX_FILES,
    ROOT,
    WHITEOUT,
    Entry,
    Kind,
)

_NAME = attrgetter("name")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_BUFFER = 1024 * 1024
_EMPTY = hashlib.sha256().digest()
_STAT = struct.Struct("=QQQQQQqqq").pack
TICK = 20_000_000
"""Nanoseconds: the coarsest step of ctime (10 ms at 100 Hz), twice."""
_INERT = frozenset({"origin", "impure", "uuid", "nlink"})
"""What overlayfs keeps for its own bookkeeping; everything else changes which files are seen."""
_KINDS = {
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
}


@contextmanager
def opened(place: str | os.PathLike[str]) -> Iterator[int]:
    """A folder's descriptor. Raises ``UnsteadyTree`` if it cannot be opened."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnsteadyTree(
            f"a folder of the container cannot be opened: {error.strerror}"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Stats:
    """A tree by its inodes. ``unsettled`` if something changed within ``TICK`` of the walk's start, so that
    another change could hide behind the same ctime.
    """

    fingerprint: bytes
    unsettled: bool
    entries: int


def stats(descriptor: int) -> Stats:
    """Device, inode, mode, owner, size, mtime and ctime of every entry, in one digest.

    Raises ``UnsteadyTree``, or ``ForeignMount`` for another file system inside.
    """
    walk = _Stating(os.fstat(descriptor).st_dev, time.time_ns())
    with _steady():
        walk.root(os.fstat(descriptor))
        walk.folder(descriptor, MAX_DEPTH)
    return Stats(walk.hasher.digest(), walk.unsettled, walk.entries)


class _Stating:
    """One walk by stat. It runs at every start of every container, so it calls little."""

    __slots__ = ("_device", "_from", "_to", "entries", "hasher", "unsettled")

    def __init__(self, device: int, clock: int) -> None:
        self._device = device
        self._from, self._to = clock - TICK, clock + TICK
        self.hasher = hashlib.sha256()
        self.unsettled = False
        self.entries = 0

    def folder(self, descriptor: int, depth: int) -> None:
        """Everything in a folder, in the order of names; no name has the slash that parts them."""
        with os.scandir(descriptor) as scan:
            found = sorted(scan, key=_NAME)
        self.entries += len(found)
        _check_bounds(self.entries, depth)
        names = [one.name for one in found]
        self._take(names, [one.stat(follow_symlinks=False) for one in found])
        for one in found:
            if one.is_dir(follow_symlinks=False):
                with _inside(one.name, descriptor) as child:
                    _check_device(os.fstat(child), self._device)
                    self.folder(child, depth - 1)
        self.hasher.update(b"//")

    def root(self, found: os.stat_result) -> None:
        """The folder itself."""
        self._take([], [found])

    def _take(self, names: list[str], found: list[os.stat_result]) -> None:
        records = [
            _STAT(
                one.st_dev,
                one.st_ino,
                one.st_mode,
                one.st_uid,
                one.st_gid,
                one.st_rdev,
                one.st_size,
                one.st_mtime_ns,
                one.st_ctime_ns,
            )
            for one in found
        ]
        first, last = self._from, self._to
        self.unsettled |= any(first < one.st_ctime_ns < last for one in found)
        self.hasher.update(os.fsencode("/".join(names)) + b"//" + b"".join(records))


# Content -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Listing:
    """A tree by its content, as far as it was read, and how many bytes that took.

    ``marks`` is the prefix of the attributes by which overlayfs knows opaque folders, or None where
    nothing is a mark.
    """

    marks: str | None
    content: bool
    device: int
    limit: int
    tree: dict[bytes, Entry] = field(default_factory=dict)
    hashed: int = 0
    links: dict[tuple[int, int], bytes] = field(default_factory=dict)
    view: memoryview = field(default_factory=lambda: memoryview(bytearray(_BUFFER)))


def listing(
    descriptor: int, marks: str | None, *, content: bool = True, limit: int = MAX_FILES
) -> Listing:
    """The tree in a folder; without ``content`` only empty files have a digest. Raises ``UnsteadyTree`` for
    what changes meanwhile, ``ForeignMount`` for what overlayfs would show differently.
    """
    root = os.fstat(descriptor)
    found = Listing(marks, content, root.st_dev, limit)
    with _steady():
        found.tree[ROOT] = _entry(found, descriptor, root, Kind.DIRECTORY)
        _list(found, descriptor, ROOT, MAX_DEPTH)
    found.tree = dict(sorted(found.tree.items()))
    return found


def _list(found: Listing, descriptor: int, above: bytes, depth: int) -> None:
    with os.scandir(descriptor) as scan:
        inside = list(scan)
    _check_bounds(len(found.tree) + len(inside), depth, found.limit)
    for one in inside:
        name = one.name
        path = above + b"/" * bool(above) + os.fsencode(name)
        if one.is_dir(follow_symlinks=False):
            with _inside(name, descriptor) as child:
                status = os.fstat(child)
                _check_device(status, found.device)
                found.tree[path] = _entry(found, child, status, Kind.DIRECTORY)
                _list(found, child, path, depth - 1)
        elif found.content and one.is_file(follow_symlinks=False):
            found.tree[path] = _file(found, name, descriptor)
        else:
            found.tree[path] = _special(found, name, descriptor)


def _file(found: Listing, name: str, folder: int) -> Entry:
    descriptor = os.open(name, _FILE, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnsteadyTree("a file became something else while it was read", got=ascii(name))
        inode = (status.st_dev, status.st_ino)
        digest = found.links.get(inode)
        if digest is None:
            digest = _hashed(found, descriptor, status.st_size)
            if status.st_nlink > 1:
                found.links[inode] = digest
        return _entry(found, descriptor, status, Kind.FILE, digest)
    finally:
        os.close(descriptor)


def _hashed(found: Listing, descriptor: int, left: int) -> bytes:
    """SHA-256 of a file of ``left`` bytes; one that grows meanwhile has another ctime."""
    hasher = hashlib.sha256()
    while left > 0 and (size := os.readv(descriptor, (found.view,))):
        hasher.update(found.view[:size])
        found.hashed += size
        left -= size
    return hasher.digest()


def _special(found: Listing, name: str, folder: int) -> Entry:
    """What is not opened: links, devices, pipes, sockets; files whose content is not asked for."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    if kind is Kind.SYMLINK:
        target = os.fsencode(os.readlink(name, dir_fd=folder))
        return _entry(found, None, status, kind, target)
    if found.marks and kind is Kind.CHARACTER_DEVICE and status.st_rdev == 0:
        return WHITEOUT
    content = _EMPTY if kind is Kind.FILE and not status.st_size else b""
    return _entry(found, f"/proc/self/fd/{folder}/{name}", status, kind, content)


def _entry(
    found: Listing,
    place: int | str | None,
    status: os.stat_result,
    kind: Kind,
    content: bytes = b"",
) -> Entry:
    attributes, opaque = _attributes(found.marks, place)
    device = kind in {Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE}
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind is Kind.FILE else 0,
        content=content,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if device else (0, 0),
        attributes=attributes,
        opaque=opaque,
    )


def _attributes(
    marks: str | None, place: int | str | None
) -> tuple[tuple[tuple[str, bytes], ...], bool]:
    """The attributes that are compared, and whether the folder is opaque."""
    if place is None:
        return (), False
    link = {} if isinstance(place, int) else {"follow_symlinks": False}
    try:
        names = os.listxattr(place, **link)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        names = []  # squashfs says so of an image in which no file has any
    if not names:
        return (), False
    opaque = False
    for name in names:
        if marks and name.startswith(marks):
            opaque |= _opaque(name.removeprefix(marks), os.getxattr(place, name, **link))
    kept = tuple((one, os.getxattr(place, one, **link)) for one in ATTRIBUTES if one in names)
    return kept, opaque


def _opaque(name: str, value: bytes) -> bool:
    """What an attribute of overlayfs says. Raises ``ForeignMount`` for those that move content."""
    if name == "opaque" and value == b"y":
        return True
    if name not in _INERT:
        raise ForeignMount("a layer has attributes that redirect overlayfs", got=ascii(name[:32]))
    return False


# Bounds ------------------------------------------------------------------------------------


@contextmanager
def _inside(name: str, folder: int) -> Iterator[int]:
    descriptor = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _steady() -> Iterator[None]:
    """What vanishes or turns into a link between two system calls."""
    try:
        yield
    except OSError as error:
        raise UnsteadyTree(f"files cannot be read: {error.strerror}") from error


def _check_bounds(entries: int, depth: int, limit: int = MAX_FILES) -> None:
    if entries > limit or depth <= 0:
        raise UnknownLayers("a tree of more files or deeper folders than any image has")


def _check_device(found: os.stat_result, device: int) -> None:
    if found.st_dev != device:
        raise ForeignMount("another file system lies inside the root file system")
