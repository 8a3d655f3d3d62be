"""File trees by content: what layers, images and directories are compared as.

The canonical listing has one record per path, sorted by its bytes, integers big-endian::

    u32 length, path | u8 kind | u8 flags (1 opaque, 2 implied) | u16 mode | u32 uid | u32 gid
    u64 size | u32 major | u32 minor | u32 length, content | u8 count of attributes
    each attribute: u8 length, name | u32 length, value

``content`` is the SHA-256 of a file or the target of a symlink. A tree's digest is the SHA-256 of its
listing. Hard links count as files of the same content: how many names one inode has decides nothing.

Not compared: times (unpacking and mounting move a folder's, and no program is another by its date),
and every extended attribute but those in ``ATTRIBUTES``: labels of SELinux, IMA and EVM are the host's own,
``user.*`` grants nothing and is lost by some file systems.

Two marks take the same form whether they come from a tar or from an overlay's lower folder: a
*whiteout* hides what lies below it; an *opaque* folder hides the content of the one below.
A folder is *implied* if the layer has something in it but no entry for it: its owner and mode are
then the runtime's choice, and not listed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from catena.containers.rootfs.refusals import AmbiguousLayer
from catena.errors import FormatError
from catena.formats.reader import Reader
from catena.ids import TreeDigest

ATTRIBUTES = (
    "security.capability",
    "system.posix_acl_access",
    "system.posix_acl_default",
)
"""What gives a program rights, or a user access."""

MAX_DEPTH = 200
MAX_FILES = 2_000_000

ROOT = b""
MTAB = b"etc/mtab"
_FIXED = struct.Struct(">cBHIIQII")
_LENGTH = struct.Struct(">I")
_OPAQUE, _IMPLIED = 1, 2
_MAX_TEXT = 65536


class Kind(Enum):
    """What lies at a path; the value is its letter in the listing."""

    DIRECTORY = b"d"
    FILE = b"f"
    SYMLINK = b"l"
    CHARACTER_DEVICE = b"c"
    BLOCK_DEVICE = b"b"
    FIFO = b"p"
    SOCKET = b"s"
    WHITEOUT = b"w"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a tree."""

    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    content: bytes = b""
    device: tuple[int, int] = (0, 0)
    attributes: tuple[tuple[str, bytes], ...] = ()
    opaque: bool = False
    implied: bool = False

    @property
    def is_directory(self) -> bool:
        """Whether other paths may lie below it."""
        return self.kind is Kind.DIRECTORY

    def unowned(self) -> Entry:
        """A folder without what an implied one does not have."""
        return Entry(Kind.DIRECTORY, opaque=self.opaque, implied=True)


IMPLIED = Entry(Kind.DIRECTORY, implied=True)
WHITEOUT = Entry(Kind.WHITEOUT)
Tree = Mapping[bytes, Entry]
"""Entries by path (relative, without a leading slash; the root is empty), sorted, parents included."""


def shown(path: bytes) -> str:
    """A path as an error may show it: printable and short."""
    return "/" + ascii(path[:200])[2:-1]


def parent(path: bytes) -> bytes:
    """The folder that ``path`` lies in; the root's is the root."""
    return path.rpartition(b"/")[0]


def completed(entries: Mapping[bytes, Entry]) -> dict[bytes, Entry]:
    """``entries`` with every folder on the way to them, sorted. Raises ``AmbiguousLayer`` beyond
    ``MAX_DEPTH`` and ``MAX_FILES``, which no tree on disk may exceed either.
    """
    whole = {ROOT: IMPLIED, **entries}
    for path in entries:
        if path.count(b"/") >= MAX_DEPTH or len(whole) > MAX_FILES:
            raise AmbiguousLayer("a layer of more files or deeper folders than can be unpacked")
        above = parent(path)
        while above not in whole:
            whole[above] = IMPLIED
            above = parent(above)
    return dict(sorted(whole.items()))


def encode(tree: Tree) -> bytes:
    """The canonical listing."""
    return b"".join(_record(path, entry) for path, entry in tree.items())


def digest(tree: Tree) -> TreeDigest:
    """SHA-256 over the canonical listing."""
    return digest_of(encode(tree))


def digest_of(listing: bytes) -> TreeDigest:
    """The digest of a tree that is listed already."""
    return TreeDigest(hashlib.sha256(listing).hexdigest())


def outline(tree: Tree) -> TreeDigest:
    """The digest without owners and modes of folders: equal for a layer and for its unpacked form,
    whatever the runtime chose for implied folders.
    """
    return digest({path: one.unowned() if one.is_directory else one for path, one in tree.items()})


def core(tree: Tree) -> TreeDigest:
    """The digest without what runtimes add to an unpacked image: folders, empty files, ``etc/mtab``."""
    return digest(
        {
            path: one
            for path, one in tree.items()
            if not one.is_directory and path != MTAB and (one.kind is not Kind.FILE or one.size)
        }
    )


def _record(path: bytes, one: Entry) -> bytes:
    flags = (_OPAQUE if one.opaque else 0) | (_IMPLIED if one.implied else 0)
    attributes = b"".join(
        bytes((len(name),)) + name.encode() + _LENGTH.pack(len(value)) + value
        for name, value in one.attributes
    )
    return b"".join(
        (
            _LENGTH.pack(len(path)),
            path,
            _FIXED.pack(one.kind.value, flags, one.mode, one.uid, one.gid, one.size, *one.device),
            _LENGTH.pack(len(one.content)),
            one.content,
            bytes((len(one.attributes),)),
            attributes,
        )
    )


def decode(listing: bytes) -> dict[bytes, Entry]:
    """The tree of a canonical listing. Raises ``FormatError``."""
    reader = Reader(listing, order="big")
    tree = dict(_decoded(reader))
    if encode(tree) != listing:
        raise FormatError("listing of a tree is not canonical")
    return tree


def _decoded(reader: Reader) -> Iterator[tuple[bytes, Entry]]:
    while reader.remaining:
        path = reader.sized(4, _MAX_TEXT, "path")
        offset = reader.offset
        fixed = _FIXED.unpack(reader.take(_FIXED.size, "entry"))
        kind, flags, mode, uid, gid, size, major, minor = fixed
        content = reader.sized(4, _MAX_TEXT, "content")
        count = reader.uint(1, "attributes")
        attributes = tuple(
            (
                reader.sized(1, 255, "attribute").decode("ascii", "replace"),
                reader.sized(4, _MAX_TEXT, "value"),
            )
            for _ in range(count)
        )
        try:
            known = Kind(kind)
        except ValueError as error:
            raise FormatError("listing has an unknown kind", offset=offset) from error
        yield (
            path,
            Entry(
                known,
                mode,
                uid,
                gid,
                size,
                content,
                (major, minor),
                attributes,
                opaque=bool(flags & _OPAQUE),
                implied=bool(flags & _IMPLIED),
            ),
        )


def merged(layers: list[Tree]) -> dict[bytes, Entry]:
    """What ``layers``, bottom first, look like on top of each other (OCI layer.md, "Applying Changesets").

    An implied folder keeps what a lower layer says of it. Marks are gone from the result. Raises
    ``AmbiguousLayer`` for a path through what is no folder below: some runtimes follow a symlink
    there, others hide it.
    """
    result: dict[bytes, Entry] = {ROOT: IMPLIED}
    for layer in layers:
        _hide(result, layer)
        for path, one in layer.items():
            below = result.get(path)
            if one.implied and below and not below.is_directory:
                raise AmbiguousLayer(
                    "a layer names a path through what is no folder below", got=shown(path)
                )
            if one.kind is Kind.WHITEOUT or (one.implied and below):
                continue
            result[path] = replace(one, opaque=False)
    return dict(sorted(result.items()))


def _hide(result: dict[bytes, Entry], layer: Tree) -> None:
    """Take out of ``result`` what ``layer`` hides: below whiteouts, opaque folders and files."""
    gone = {path for path, one in layer.items() if not one.is_directory and path in result}
    emptied = {path for path, one in layer.items() if one.opaque}
    if not (gone or emptied):
        return
    for path in [one for one in result if _hidden(one, gone, emptied)]:
        del result[path]


def _hidden(path: bytes, gone: set[bytes], emptied: set[bytes]) -> bool:
    if path in gone:
        return True
    while path:
        path = parent(path)
        if path in gone or path in emptied:
            return True
    return False
