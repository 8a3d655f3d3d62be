"""A cpio archive in "newc" form, as the kernel unpacks initrds (Linux, early-userspace/buffer-format).

Each entry is a header of ``070701`` and thirteen 8-digit hex fields, the name with NUL, and the
content, both padded to four bytes. The archive depends on nothing but its entries: they are
sorted by name, owned by root, and have no date.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"


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
