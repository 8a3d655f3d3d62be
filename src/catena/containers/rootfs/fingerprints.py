"""Which folder had which content when its files last changed: each file is hashed once.

A folder's *fingerprint* is over device, inode, mode, owner, size, mtime and ctime of all its entries. While it
is the same, the content is taken to be the same. Every change through the file system sets ctime to
the clock, and nothing sets it otherwise, so a file whose mtime was set back is noticed. Not noticed, all of it
within root's power only:

- changes with the clock set back to the nanosecond of the last change;
- changes to the disk beneath the file system, or by another host that has it mounted;
- writes through a shared mapping whose page was already dirty when the file was hashed (until the
  kernel writes it back; on tmpfs, always).

``strict`` hashes again and notices these, too.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace

from catena.containers.rootfs import tree as trees
from catena.containers.rootfs import walk
from catena.containers.rootfs.refusals import UnsteadyTree
from catena.containers.rootfs.tree import Tree
from catena.containers.rootfs.turns import Turns
from catena.ids import TreeDigest

MAX_FOLDERS = 4096
_ATTEMPTS = 10
_Key = tuple[int, int, str | None]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder holds. ``tree`` is there only if it was read just now, then ``hashed`` says
    how many bytes that took.
    """

    digest: TreeDigest
    outline: TreeDigest
    core: TreeDigest
    tree: Tree | None
    hashed: int

    @classmethod
    def of(cls, tree: Tree, hashed: int) -> Contents:
        """The digests of a tree."""
        return cls(trees.digest(tree), trees.outline(tree), trees.core(tree), tree, hashed)


class Fingerprints:
    """Remembers the contents of the folders that were used last. Safe for threads."""

    def __init__(self, folders: int = MAX_FOLDERS) -> None:
        self._folders = folders
        self._known: OrderedDict[_Key, tuple[bytes, Contents]] = OrderedDict()
        self._lock = threading.Lock()
        """Guards ``_known``; held for a look, never while files are read."""
        self._turns: Turns[Contents] = Turns()

    def contents(self, descriptor: int, marks: str | None, *, fresh: bool) -> Contents:
        """What is in the folder now; read again if it changed or must be ``fresh``.

        Raises ``UnsteadyTree`` or ``ForeignMount``.
        """
        status = os.fstat(descriptor)
        key = (status.st_dev, status.st_ino, marks)
        return self._turns.take((*key, fresh), lambda: self._look(descriptor, key, fresh=fresh))

    def _look(self, descriptor: int, key: _Key, *, fresh: bool) -> Contents:
        before = walk.stats(descriptor)
        with self._lock:
            fingerprint, known = self._known.get(key, (b"", None))
            if known is not None:
                self._known.move_to_end(key)
        if known is not None and fingerprint == before.fingerprint and not fresh:
            return known
        before = _settled(descriptor, before)
        listing = walk.listing(descriptor, key[2])
        if walk.stats(descriptor).fingerprint != before.fingerprint:
            raise UnsteadyTree("files changed while they were read")
        found = Contents.of(listing.tree, listing.hashed)
        self._remember(key, before.fingerprint, found)
        return found

    def _remember(self, key: _Key, fingerprint: bytes, found: Contents) -> None:
        with self._lock:
            self._known[key] = (fingerprint, replace(found, tree=None, hashed=0))
            while len(self._known) > self._folders:
                self._known.popitem(last=False)


def _settled(descriptor: int, found: walk.Stats) -> walk.Stats:
    """``found`` once its last change is so long ago that another one would have another ctime."""
    for _ in range(_ATTEMPTS):
        if not found.unsettled:
            return found
        time.sleep(2 * walk.TICK / 1e9)
        found = walk.stats(descriptor)
    raise UnsteadyTree("files keep changing")
