"""The cpio archives that systemd-stub makes of files beside an image (systemd, ``cpio.c``).

The stub measures the archive's bytes, so they must be made exactly as it makes them: folders
first (the inner one with its own mode, those above with 0555), files sorted by name, numbered
inodes, no dates, lower-case hex.
"""

from __future__ import annotations

from collections.abc import Iterable

_TRAILER = (
    b"070701" + b"00000000" * 4 + b"00000001" + b"00000000" * 6 + b"0000000B" + b"00000000"
    b"TRAILER!!!\0\0\0\0"
)
_FOLDER, _FILE = 0o040000, 0o100000
_OUTER_MODE = 0o555

SECRET_MODES = (0o500, 0o400)
"""Folder and files of credentials."""

PUBLIC_MODES = (0o555, 0o444)
"""Folder and files of everything else."""


def archive(folder: str, files: Iterable[tuple[str, bytes]], modes: tuple[int, int]) -> bytes:
    """The archive of ``files`` (name, content) in ``folder``; empty if there are none."""
    ordered = sorted(files)
    if not ordered:
        return b""
    folder_mode, file_mode = modes
    parts = folder.split("/")
    wire, inode = b"", 1
    for depth in range(1, len(parts) + 1):
        mode = folder_mode if depth == len(parts) else _OUTER_MODE
        wire += _entry("/".join(parts[:depth]), _FOLDER | mode, b"", inode)
        inode += 1
    for name, content in ordered:
        wire += _entry(f"{folder}/{name}", _FILE | file_mode, content, inode)
        inode += 1
    return wire + _TRAILER


def padded(content: bytes) -> bytes:
    """Followed by zeros to a multiple of four bytes, as initrds are joined."""
    return content + bytes(-len(content) % 4)


def _entry(name: str, mode: int, content: bytes, inode: int) -> bytes:
    path = name.encode("ascii") + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields)
    return padded(head + path) + padded(content)
