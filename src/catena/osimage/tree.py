"""A root file system tree on disk, read as if it were ``/``.

Symbolic links inside a tree mean the tree's own root. Following one with the builder's
root instead would copy the builder's files into a release.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from catena.errors import NotFound, Unavailable

_MAX_LINKS = 40


class NotInTree(NotFound):
    """A file that the release needs is not in the tree."""

    code = "not-in-tree"
    remedy = "Install the package that has the file into the tree."


class UnreadableTree(Unavailable):
    """A part of the tree that this user may not read, so the image would lack it."""

    code = "unreadable-tree"
    remedy = (
        "Build as the tree's owner, usually root (or inside `unshare --map-auto --map-root-user`)."
    )


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree under ``root``; all paths given and returned are absolute inside it."""

    root: Path

    def resolve(self, path: PurePosixPath) -> PurePosixPath:
        """The path without symbolic links. Raises ``NotInTree``."""
        resolved = PurePosixPath("/")
        pending = list(reversed(path.relative_to("/").parts))
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                resolved = resolved.parent
                continue
            candidate = resolved / part
            on_disk = self.on_disk(candidate)
            if not on_disk.is_symlink():
                resolved = candidate
                continue
            links += 1
            if links > _MAX_LINKS:
                raise NotInTree("too many symbolic links", got=str(path))
            target = PurePosixPath(on_disk.readlink())
            if target.is_absolute():
                resolved = PurePosixPath("/")
            pending.extend(part for part in reversed(target.parts) if part != "/")
        if not self.on_disk(resolved).exists():
            raise NotInTree(f"the tree has no {path}", got=str(self.root))
        return resolved

    def find(self, name: str, folders: tuple[str, ...]) -> PurePosixPath:
        """The resolved path of a file in the first folder that has it. Raises ``NotInTree``."""
        for folder in folders:
            try:
                return self.resolve(PurePosixPath(folder) / name)
            except NotInTree:
                continue
        raise NotInTree(f"the tree has no {name}", expected=" or ".join(folders))

    def read(self, path: PurePosixPath) -> bytes:
        """The content of a file. Raises ``NotInTree`` or ``UnreadableTree``."""
        on_disk = self.on_disk(self.resolve(path))
        try:
            return on_disk.read_bytes()
        except OSError as error:
            raise UnreadableTree(f"cannot read {path}: {error.strerror}") from error

    def on_disk(self, path: PurePosixPath) -> Path:
        """Where a resolved path is for the builder."""
        return self.root / path.relative_to("/")

    def check_readable(self) -> None:
        """Refuse a tree with a part that this user cannot read. Raises ``UnreadableTree``."""
        if not self.root.is_dir():
            raise NotInTree("no root file system tree", got=str(self.root))
        for folder, folders, files in os.walk(self.root, onerror=_unreadable):
            for name in (*folders, *files):
                _check_readable(Path(folder) / name)


def _check_readable(path: Path) -> None:
    mode = path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return
    if not os.access(path, os.R_OK, effective_ids=True):
        raise UnreadableTree("a part of the tree is not readable", got=ascii(str(path)[:200]))


def _unreadable(error: OSError) -> None:
    name = ascii(str(error.filename)[:200])
    raise UnreadableTree("a folder of the tree is not readable", got=name) from error
