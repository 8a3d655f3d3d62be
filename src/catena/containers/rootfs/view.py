"""What an overlay shows, beside what its folders hold.

A mount's options name folders as they were called when it was made. Whether it still shows these
is seen from outside: a file of a lower folder has the same inode number in the overlay (overlayfs.rst,
"Inode properties"; the upper half may be overlayfs' own with ``xino``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from catena.containers.rootfs import walk
from catena.containers.rootfs.catalog import Catalog, Chain
from catena.containers.rootfs.fit import strangers
from catena.containers.rootfs.looking import Looking
from catena.containers.rootfs.nearest import NAMED, altered
from catena.containers.rootfs.refusals import ForeignMount
from catena.containers.rootfs.tree import Kind, Tree

_INODE = (1 << 32) - 1


def check_shown(catalog: Catalog, chain: Chain, lowers: Sequence[Path], descriptor: int) -> None:
    """Refuse a mount that shows other folders than ``lowers``, as far as one file of each tells.

    A layer of which no file is seen has nothing to compare.
    """
    for lower, path in zip(lowers, _witnesses(catalog, chain), strict=True):
        if path is None:
            continue
        with walk.opened(lower) as folder:
            if (_inode(folder, path) ^ _inode(descriptor, path)) & _INODE:
                raise ForeignMount("the mount shows other folders than it names")


def _inode(folder: int, path: bytes) -> int:
    try:
        return os.stat(os.fsdecode(path), dir_fd=folder, follow_symlinks=False).st_ino
    except OSError as error:
        raise ForeignMount("the mount does not show what its folders hold") from error


def _witnesses(catalog: Catalog, chain: Chain) -> tuple[bytes | None, ...]:
    """For each layer a file with content that no layer above hides."""
    question = ("witnesses", *chain.diff_ids)
    known = catalog.memory.recall(question)
    if not isinstance(known, tuple):
        layers = [catalog.layer(chain.diff_ids[one]) for one in chain.places]
        whole = catalog.whole(chain).tree
        above: set[bytes] = set()
        found: list[bytes | None] = []
        for layer in reversed(layers):
            seen = (path for path in layer if path not in above and _tells(layer, whole, path))
            found.append(next(seen, None))
            above |= layer.keys()
        known = tuple(reversed(found))
        catalog.memory.keep(question, known)
    return known


def _tells(layer: Tree, whole: Tree, path: bytes) -> bool:
    """Whether a layer's path is a file with content that the image has: no runtime's own."""
    one = layer[path]
    return one.kind is Kind.FILE and one.size > 0 and whole.get(path) == one


def check_view(looking: Looking, chain: Chain, descriptor: int) -> int:
    """Hash the files as the container will see them; how many bytes that took."""
    found = walk.listing(descriptor, None)
    paths = strangers(looking.catalog.whole(chain), found.tree, looking.mounts)
    first = tuple(islice(paths, NAMED + 1))
    if first:
        raise altered("through the mount, the image", first)
    return found.hashed
