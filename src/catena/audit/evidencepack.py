r"""Packs: many contents in one file, so that evidence that comes once costs no file of its own.

::

    pack-00000007         "catena evidence pack 1\n", then records: SHA-256 ‖ uint32 length ‖ content
    pack-00000007.index   for each record: SHA-256 ‖ uint64 offset of its content ‖ uint32 length

A pack has one writer, which began it: another process, or the same one after a restart, begins the
next. What was put into it is on disk when ``put`` returns. The index only makes reading fast and does
not wait for the disk: what a crash took of it is found by walking the pack's records, and what it took of
a pack was named by no entry. Whoever reads checks the digest, so a pack needs no trust.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from catena.audit.folder import sync_folder

FULL = 256 * 1024 * 1024
"""Bytes after which the next pack begins."""
_MAGIC = b"catena evidence pack 1\n"
_RECORD = struct.Struct(">32sI")
_INDEXED = struct.Struct(">32sQI")
_NAME = re.compile(r"pack-\d{8}")
_INDEX = ".index"


class PackWriter:
    """Appends to packs in one folder. For one thread at a time."""

    def __init__(self, folder: Path, *, full: int = FULL) -> None:
        self._folder = folder
        self._full = full
        self._path = folder
        self._pack = self._index = -1
        self._size = 0

    def put(self, contents: Sequence[tuple[str, bytes]]) -> None:
        """Append contents under their digests, durably. Raises ``OSError``."""
        if self.is_full():
            self._begin()
        records, index, offset = [], [], self._size
        for sha256, content in contents:
            digest = bytes.fromhex(sha256)
            records.append(_RECORD.pack(digest, len(content)) + content)
            index.append(_INDEXED.pack(digest, offset + _RECORD.size, len(content)))
            offset += len(records[-1])
        try:
            _write(self._pack, b"".join(records))
        except OSError:
            try:
                os.ftruncate(self._pack, self._size)  # as if nothing had been written
            except OSError:
                self.close()
            raise
        try:
            os.fdatasync(self._pack)
            _write(self._index, b"".join(index))
        except OSError:
            self.close()  # nobody knows what is on disk: nothing more follows it
            raise
        self._size = offset

    def is_full(self) -> bool:
        """Whether the next ``put`` begins a pack."""
        return self._pack < 0 or self._size >= self._full or not self._is_there()

    def close(self) -> None:
        """Give the files back; the next ``put`` begins a pack."""
        for descriptor in (self._pack, self._index):
            if descriptor >= 0:
                os.close(descriptor)
        self._pack = self._index = -1

    def _is_there(self) -> bool:
        """Whether the pack still lies where readers look for it."""
        try:
            return os.path.samestat(os.fstat(self._pack), os.stat(self._path))  # noqa: PTH116
        except FileNotFoundError:
            return False

    def _begin(self) -> None:
        self.close()
        self._folder.mkdir(mode=0o755, exist_ok=True)
        number = 1 + max((int(path.name[5:]) for path in _packs(self._folder)), default=0)
        while self._pack < 0:
            path = self._folder / f"pack-{number:08d}"
            with contextlib.suppress(FileExistsError):  # another process was faster
                self._pack = _create(path)
                self._index = _create(path.with_name(path.name + _INDEX))
                self._path = path
            number += 1
        self._size = len(_MAGIC)
        try:
            _write(self._pack, _MAGIC)
        except OSError:  # a full disk must not fill with empty packs
            self.close()
            self._path.unlink(missing_ok=True)
            self._path.with_name(self._path.name + _INDEX).unlink(missing_ok=True)
            raise
        sync_folder(self._folder)
        sync_folder(self._folder.parent)


class PackReader:
    """Finds contents in the packs of a folder; keeps open the one that it found something in last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: Path | None = None

    def read(self, sha256: str) -> bytes | None:
        """What is kept under this digest, *unchecked*; None if nothing is. Raises ``OSError``."""
        digest = bytes.fromhex(sha256)
        for path in self._likely():
            content = _find(path, digest)
            if content is not None:
                self._last = path
                return content
        return None

    def _likely(self) -> Iterator[Path]:
        """The packs, newest first, from the one behind that which had the last content.

        Evidence is mostly read in the order in which it came, or the newest.
        """
        packs = sorted(_packs(self._folder), reverse=True)
        if self._last in packs:
            at = max(packs.index(self._last) - 1, 0)
            yield from reversed(packs[at : at + 2])
        yield from packs


def altered_in(pack: Path) -> str | None:
    """The digest of the first record of a pack that is not what it is named by; None if all are.

    An incomplete record at the end is none. Raises ``OSError``, ``ValueError`` for what is no pack.
    """
    with pack.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(pack.name)
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            digest, length = _RECORD.unpack(head)
            content = file.read(length)
            if len(content) == length and hashlib.sha256(content).digest() != digest:
                return bytes(digest).hex()
    return None


def _packs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]


def _find(path: Path, digest: bytes) -> bytes | None:
    with path.open("rb") as pack:
        indexed, place = _look_up(path.with_name(path.name + _INDEX), digest)
        if place is None:
            place = _walk(pack.fileno(), indexed, digest)
        if place is None:
            return None
        pack.seek(place[0])
        return pack.read(place[1])


def _look_up(path: Path, digest: bytes) -> tuple[int, tuple[int, int] | None]:
    """How much of the pack is indexed, and where the content lies in it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return 0, None
    whole = len(content) - len(content) % _INDEXED.size
    at = content.find(digest, 0, whole)
    while at % _INDEXED.size and at >= 0:
        at = content.find(digest, at + 1, whole)
    if at >= 0:
        _, offset, length = _INDEXED.unpack_from(content, at)
        return 0, (offset, length)
    if not whole:
        return 0, None
    _, offset, length = _INDEXED.unpack_from(content, whole - _INDEXED.size)
    return offset + length, None


def _walk(pack: int, start: int, digest: bytes) -> tuple[int, int] | None:
    """Look through the records behind ``start``; an incomplete one ends them."""
    size = os.fstat(pack).st_size
    if size <= max(start, len(_MAGIC)):
        return None
    with mmap.mmap(pack, size, access=mmap.ACCESS_READ) as content:
        at = start or len(_MAGIC)
        while at + _RECORD.size <= size:
            found, length = _RECORD.unpack_from(content, at)
            at += _RECORD.size
            if at + length > size:
                return None
            if found == digest:
                return at, length
            at += length
    return None


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    return os.open(path, flags, 0o640)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
