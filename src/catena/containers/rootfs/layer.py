"""A layer's tar as a file tree (OCI image-spec 1.1, layer.md).

A layer must mean the same files whoever unpacks it. Where containerd and podman (containers/storage)
do different things with an archive, it is refused: a path written twice, a hard link to something
later or with another owner or mode than its file, a path through a file, a whiteout of what
the same layer brings, AUFS' own marks, attributes that overlayfs would act on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NoReturn

from catena.containers.rootfs.refusals import AmbiguousLayer
from catena.containers.rootfs.tree import (
    ATTRIBUTES,
    ROOT,
    WHITEOUT,
    Entry,
    Kind,
    completed,
    parent,
    shown,
)
from catena.formats.layertar import TarEntry, TarKind

_WHITEOUT = b".wh."
_AUFS = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_ACTED_ON = (b"trusted.", b"user.overlay.")
_KINDS = {
    TarKind.DIRECTORY: Kind.DIRECTORY,
    TarKind.FILE: Kind.FILE,
    TarKind.SYMLINK: Kind.SYMLINK,
    TarKind.CHARACTER_DEVICE: Kind.CHARACTER_DEVICE,
    TarKind.BLOCK_DEVICE: Kind.BLOCK_DEVICE,
    TarKind.FIFO: Kind.FIFO,
}


@dataclass(slots=True)
class _Growing:
    """A layer while it is read."""

    entries: dict[bytes, Entry] = field(default_factory=dict)
    opaque: set[bytes] = field(default_factory=set)


def layer_tree(entries: Iterable[TarEntry]) -> dict[bytes, Entry]:
    """The tree of a layer, with its marks. Raises ``AmbiguousLayer``, and ``FormatError`` of the reader."""
    growing = _Growing()
    for one in entries:
        folder, _, name = one.path.rpartition(b"/")
        if not name.startswith(_WHITEOUT):
            _add(growing, one.path, _entry(growing, one))
        elif one.kind is not TarKind.FILE or one.size:
            _refuse("a whiteout that is no empty file", one.path)
        elif name == _OPAQUE:
            growing.opaque.add(folder)
        elif name.startswith(_AUFS) or name[len(_WHITEOUT) :] in {b"", b".", b".."}:
            _refuse("a mark that layers do not have", one.path)
        else:
            _add(growing, folder + b"/" * bool(folder) + name[len(_WHITEOUT) :], WHITEOUT)
    return _finished(growing)


def aci_tree(entries: Iterable[TarEntry]) -> dict[bytes, Entry]:
    """The tree below ``rootfs/`` of an ACI (appc spec 0.8.11, "Image Layout"), where no name is a mark."""
    growing = _Growing()
    prefix = b"rootfs/"
    for one in entries:
        if one.path == b"rootfs":
            _add(growing, ROOT, _entry(growing, one))
        elif one.path.startswith(prefix):
            target = one.target
            if one.kind is TarKind.HARD_LINK and not target.startswith(prefix):
                _refuse("a hard link that leaves the root file system", one.path)
            if one.kind is TarKind.HARD_LINK:
                target = target.removeprefix(prefix)
            moved = replace(one, path=one.path.removeprefix(prefix), target=target)
            _add(growing, moved.path, _entry(growing, moved))
        elif one.path not in {ROOT, b"manifest"}:
            _refuse("an ACI holds more than a manifest and a root file system", one.path)
    return _finished(growing)


def _add(growing: _Growing, path: bytes, entry: Entry) -> None:
    """Enter a path; only a folder may come again, and then its last entry counts."""
    known = growing.entries.get(path)
    if known is not None and not (known.is_directory and entry.is_directory):
        _refuse("a layer writes a path twice", path)
    if path == ROOT and not entry.is_directory:
        _refuse("the root is no folder", path)
    growing.entries[path] = entry


def _entry(growing: _Growing, one: TarEntry) -> Entry:
    if one.kind is TarKind.HARD_LINK:
        return _linked(growing, one)
    kind = _KINDS[one.kind]
    if kind is Kind.CHARACTER_DEVICE and one.device == (0, 0):
        _refuse("a device that overlayfs takes for a whiteout", one.path)
    for name in one.xattrs:
        if name.startswith(_ACTED_ON):
            _refuse("an attribute that overlayfs acts on", one.path)
    return Entry(
        kind=kind,
        mode=0o777 if kind is Kind.SYMLINK else one.mode,  # Linux gives symlinks no mode
        uid=one.uid,
        gid=one.gid,
        size=one.size,
        content=one.target if kind is Kind.SYMLINK else one.digest,
        device=one.device,
        attributes=tuple(
            (name, one.xattrs[name.encode()]) for name in ATTRIBUTES if name.encode() in one.xattrs
        ),
    )


def _linked(growing: _Growing, one: TarEntry) -> Entry:
    """A hard link: its file once more."""
    known = growing.entries.get(one.target)
    if known is None or known.is_directory or known.kind is Kind.WHITEOUT:
        _refuse("a hard link to nothing that came before it", one.path)
    mode = known.mode if known.kind is Kind.SYMLINK else one.mode
    if (mode, one.uid, one.gid) != (known.mode, known.uid, known.gid):
        _refuse("a hard link with another owner or mode than its file", one.path)
    return known


def _finished(growing: _Growing) -> dict[bytes, Entry]:
    """The tree with its parents and opaque marks, if no path lies below a file or whiteout."""
    tree = completed({**growing.entries, **_folders(growing)})
    for path in tree:
        if path and not tree[parent(path)].is_directory:
            _refuse("a layer has a path below what is no folder", path)
    for path in growing.opaque:
        if not tree[path].is_directory:
            _refuse("a mark of a folder on what is none", path)
        tree[path] = replace(tree[path], opaque=True)
    return tree


def _folders(growing: _Growing) -> dict[bytes, Entry]:
    """Opaque folders that have no entry of their own."""
    implied = Entry(Kind.DIRECTORY, implied=True)
    return {path: implied for path in growing.opaque if path not in growing.entries}


def _refuse(why: str, path: bytes) -> NoReturn:
    raise AmbiguousLayer(why, got=shown(path))
