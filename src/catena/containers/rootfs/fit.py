"""Whether files on disk are what layers say, and what runtimes may have added before the start.

What runtimes do was observed with containerd 1.6 and podman 4.3:

- a folder that a layer implies is made 0755 root:root by podman, also where a lower layer says
  otherwise (the container then sees podman's); containerd copies the lower one. The root of podman's layers is 0555.
- podman puts a symlink ``etc/mtab`` to ``/proc/mounts`` where the image has none. runc makes what the configuration mounts on:
  empty folders and files, 0755 root:root; they are there when a container is started again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from catena.containers.rootfs.tree import (
    IMPLIED,
    MTAB,
    ROOT,
    Entry,
    Kind,
    Tree,
    merged,
    parent,
)

_MADE = frozenset({(0o755, 0, 0)})
_MADE_ROOT = _MADE | {(0o555, 0, 0)}
_MTAB = b"/proc/mounts"
_WRITABLE_BY_OTHERS = 0o7022
STANDARD = (
    *("/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm"),  # noqa: S108 - names in the container
    *("/etc/hostname", "/etc/hosts", "/etc/resolv.conf"),
    *("/proc", "/sys/fs/cgroup", "/run/.containerenv", "/run/secrets", "/.dockerenv"),
)
"""Where runtimes mount in every container; ``mounts`` of a configuration come on top."""


@dataclass(frozen=True, slots=True)
class Whole:
    """An image's files, all layers applied, and the folders whose owner and mode a runtime may
    have chosen itself though a layer below has one.
    """

    tree: Tree
    softened: frozenset[bytes] = field(default_factory=frozenset)


def whole(layers: list[Tree]) -> Whole:
    """The files of an image. Raises ``AmbiguousLayer``."""
    softened: set[bytes] = set()
    for layer in layers:
        for path, one in layer.items():
            if one.is_directory:
                (softened.add if one.implied else softened.discard)(path)
    return Whole(merged(layers), frozenset(softened))


def differences(wanted: Tree, found: Tree, beneath: Tree) -> Iterator[bytes]:
    """The paths at which an unpacked layer is not ``wanted``; ``beneath`` is what lies below it."""
    for path in sorted(wanted.keys() | found.keys()):
        want, have = wanted.get(path), found.get(path)
        if want is None or have is None:
            yield path
        elif want.implied:
            if not _is_made(path, have, want.opaque, beneath.get(path, IMPLIED)):
                yield path
        elif want != have:
            yield path


def strangers(wanted: Whole, found: Tree, mounts: Iterable[str]) -> Iterator[bytes]:
    """The paths at which unpacked ``found`` is neither ``wanted`` nor made by a runtime."""
    yield from (path for path in wanted.tree if path not in found)
    yield from additions(wanted, found, mounts)


def additions(wanted: Whole, found: Tree, mounts: Iterable[str]) -> Iterator[bytes]:
    """The paths of ``found``, which may lie on top of ``wanted``, that no runtime puts there."""
    places = _places(mounts)
    for path, have in found.items():
        want = wanted.tree.get(path)
        if have.opaque:
            yield path
        elif want is None:
            if not _is_added(path, have, places):
                yield path
        elif want.implied or (path in wanted.softened and have.is_directory) or path == ROOT:
            if not _is_made(path, have, False, want):
                yield path
        elif want != have:
            yield path


def _is_made(path: bytes, have: Entry, opaque: bool, beneath: Entry) -> bool:
    """Whether a folder is as a runtime makes it, or as the one below."""
    if not have.is_directory or have.opaque != opaque:
        return False
    if not beneath.implied and replace(have, opaque=False) == replace(beneath, opaque=False):
        return True
    made = _MADE if path else _MADE_ROOT
    return not have.attributes and (have.mode, have.uid, have.gid) in made


def _is_added(path: bytes, have: Entry, places: frozenset[bytes]) -> bool:
    """Whether it is a place to mount on, or podman's ``etc/mtab``."""
    if have.kind is Kind.SYMLINK:
        return path == MTAB and have.content == _MTAB
    if have.attributes or have.uid or have.gid or have.mode & _WRITABLE_BY_OTHERS:
        return False
    return path in places and (have.is_directory or (have.kind is Kind.FILE and not have.size))


def _places(mounts: Iterable[str]) -> frozenset[bytes]:
    """Mount points and the folders on the way to them."""
    found = {b"etc"}
    for one in (*STANDARD, *mounts):
        path = one.encode("utf-8", "surrogateescape").strip(b"/")
        while path:
            found.add(path)
            path = parent(path)
    return frozenset(found)
