"""A cpio archive in "newc" form, as the kernel unpacks initrds (Linux, early-userspace/buffer-format).

Each entry is a header of ``070701`` and thirteen 8-digit hex fields, the name with NUL, and the
content, both padded to four bytes. The archive depends on nothing but its entries: they are
sorted by name, owned by root, and have no date.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import PurePosixPath

from catena.errors import FormatError
from catena.formats.reader import Reader

_TRAILER = "TRAILER!!!"
_MAGIC = b"070701"
_FIELDS = 13
_MODE, _FILE_SIZE, _NAME_SIZE = 1, 6, 11


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder, link (``content`` is the target) or device."""

    path: PurePosixPath
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(path: PurePosixPath) -> Entry:
    """A folder that all may enter."""
    return Entry(path, stat.S_IFDIR | 0o755)


def file(path: PurePosixPath, content: bytes, *, executable: bool = False) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | (0o755 if executable else 0o644), content)


def link(path: PurePosixPath, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: PurePosixPath, major: int, minor: int) -> Entry:
    """A character device that only root may use."""
    return Entry(path, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: list[Entry]) -> bytes:
    """The archive of these entries and the folders they lie in."""
    by_path = {parent: folder(parent) for entry in entries for parent in _parents(entry.path)}
    by_path.update({entry.path: entry for entry in entries})
    ordered = [by_path[path] for path in sorted(by_path)]
    parts = [_encode(entry, number) for number, entry in enumerate(ordered, start=1)]
    parts.append(_encode(Entry(PurePosixPath("/", _TRAILER), 0), 0))
    return b"".join(parts)


def read_files(data: bytes) -> dict[PurePosixPath, bytes]:
    """Path and content of every regular file of one archive. Raises ``FormatError``."""
    reader = Reader(data, order="big")
    found: dict[PurePosixPath, bytes] = {}
    while True:
        start = reader.offset
        if reader.take(len(_MAGIC), "archive entry") != _MAGIC:
            raise FormatError("not a newc archive entry", offset=start)
        fields = [_hex(reader) for _ in range(_FIELDS)]
        name = reader.take(fields[_NAME_SIZE], "entry name").rstrip(b"\0")
        _skip_padding(reader)
        content = reader.take(fields[_FILE_SIZE], "entry content")
        _skip_padding(reader)
        if name == _TRAILER.encode():
            return found
        if stat.S_ISREG(fields[_MODE]):
            found[PurePosixPath("/", name.decode("utf-8", errors="replace"))] = content


def _hex(reader: Reader) -> int:
    start = reader.offset
    digits = reader.take(8, "entry field")
    if not all(digit in b"0123456789ABCDEFabcdef" for digit in digits):
        raise FormatError("archive field is not hexadecimal", offset=start, got=ascii(digits))
    return int(digits, 16)


def _skip_padding(reader: Reader) -> None:
    reader.take(-reader.offset % 4, "padding")


def _parents(path: PurePosixPath) -> list[PurePosixPath]:
    return [parent for parent in path.parents if parent != PurePosixPath("/")]


def _encode(entry: Entry, number: int) -> bytes:
    name = str(entry.path.relative_to("/")).encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        number,
        entry.mode,
        0,
        0,
        links,
        0,
        len(entry.content),
        0,
        0,
        *entry.device,
        len(name),
        0,
    )
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
