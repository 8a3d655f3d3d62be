r"""Tar streams of image layers (POSIX.1-2017 pax, "ustar Interchange Format"; OCI image-spec 1.1, layer.md).

::

    0 name 100 | 100 mode 8 | 108 uid 8 | 116 gid 8 | 124 size 12 | 136 mtime 12 | 148 checksum 8
    156 type 1 | 157 linkname 100 | 257 magic 6 | 263 version 2 | 265 owners' names 64
    329 devmajor 8 | 337 devminor 8 | 345 prefix 155 | 500 padding 12

Content follows its header, padded to 512 bytes; two blocks of zeros end the archive, and nothing but
zeros may follow them. Understood beside ustar: pax extended headers (``x``: path, linkpath, size, uid,
gid, ``SCHILY.xattr.*``), comments in global ones (``g``), GNU's long names (``L``, ``K``) and numbers
in base 256. A stream that runtimes could unpack in different ways is malformed: names that leave the tree, sparse files, headers
without a checksum that holds, content behind what has none.

The reader keeps one header and one buffer, whatever the length of the stream; content is hashed while
it passes.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NoReturn, Protocol

from catena.errors import FormatError

BLOCK = 512
MAX_ENTRIES = 1_000_000
MAX_PATH = 4096
MAX_EXTENSION = 1024 * 1024
MAX_RECORDS = 1024
MAX_CONTENT = 1 << 40
"""What a header may claim; the stream's own bound is its reader's."""
MAX_KEPT = 1024 * 1024
_CHUNK = 1024 * 1024
_ZEROS = bytes(BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_USTAR, _GNU = (b"ustar\0", b"00"), (b"ustar ", b" \0")
_XATTR = b"SCHILY.xattr."
_HARMLESS = (
    b"mtime",
    b"atime",
    b"ctime",
    b"uname",
    b"gname",
    b"comment",
    b"charset",
    b"hdrcharset",
)
_HARMLESS_PREFIXES = (b"LIBARCHIVE.", b"SCHILY.acl.", b"SCHILY.fflags", b"RHT.security.")
"""What the runtimes' own reader ignores, too: it makes no difference on disk."""


class Readable(Protocol):
    """Where a stream comes from."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none only at the end."""


class TarKind(Enum):
    """What an entry makes; the value is its type flag."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    CHARACTER_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


_KINDS = {kind.value: kind for kind in TarKind} | {b"\0": TarKind.FILE}
_LINKS = (TarKind.HARD_LINK, TarKind.SYMLINK)
_DEVICES = (TarKind.CHARACTER_DEVICE, TarKind.BLOCK_DEVICE)


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry. ``path`` is relative, without ``.`` and ``..``, empty for the root itself.

    ``target`` is where a link points: a hard link's is a path like ``path``, a symlink's anything.
    ``digest`` is the SHA-256 of a file's content; ``content`` is that itself where it was asked for.
    """

    path: bytes
    kind: TarKind
    mode: int
    uid: int
    gid: int
    size: int
    digest: bytes
    target: bytes
    device: tuple[int, int]
    xattrs: Mapping[bytes, bytes]
    content: bytes | None
    offset: int


@dataclass(slots=True)
class _Extension:
    """What extended headers say about the entry behind them."""

    path: bytes | None = None
    target: bytes | None = None
    numbers: dict[str, int] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    used: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Header:
    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    flag: bytes
    linkname: bytes
    device: tuple[int, int]
    offset: int


def parse(data: bytes) -> tuple[TarEntry, ...]:
    """The entries of a whole archive in memory. Raises ``FormatError`` with an offset."""
    return tuple(entries(io.BytesIO(data)))


def entries(stream: Readable, keep: Collection[bytes] = ()) -> Iterator[TarEntry]:
    """The entries as they pass by; the stream is read to its end.

    The content of the files named in ``keep`` comes with them. Raises ``FormatError``, also for
    what the stream's own reader finds wrong.
    """
    source = _Source(stream)
    count = 0
    extension = _Extension()
    while (header := _header(source)) is not None:
        count += 1
        if count > MAX_ENTRIES:
            raise FormatError("tar has too many entries", offset=header.offset)
        if header.flag in _EXTENSIONS:
            _EXTENSIONS[header.flag](source, header, extension)
            continue
        yield _entry(source, header, extension, keep)
        extension = _Extension()
    if extension.used:
        _bad(source.offset, "tar ends behind an extended header")
    _end(source)


class _Source:
    """Exact reads from a stream, with the offset."""

    __slots__ = ("_stream", "offset")

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.offset = 0

    def take(self, size: int, what: str) -> bytes:
        """The next ``size`` bytes, at most ``MAX_EXTENSION`` and a block."""
        data = self.some(size)
        while len(data) < size:
            more = self.some(size - len(data))
            if not more:
                raise FormatError(f"{what} runs past the end", offset=self.offset)
            data += more
        return data

    def some(self, size: int) -> bytes:
        """Up to ``size`` bytes; none only at the end."""
        data = self._stream.read(size) if size else b""
        self.offset += len(data)
        return data


def _header(source: _Source) -> _Header | None:
    """The next header; None at the two blocks of zeros that end the archive."""
    offset = source.offset
    block = source.take(BLOCK, "tar header")
    if block == _ZEROS:
        if source.take(BLOCK, "end of tar") != _ZEROS:
            _bad(offset, "tar has a lone block of zeros")
        return None
    fields = _HEADER.unpack(block)
    (name, mode, uid, gid, size, _, checksum, flag, linkname, magic, version) = fields[:11]
    if (magic, version) not in (_USTAR, _GNU):
        _bad(offset, "tar header is neither ustar's nor GNU's")
    if _number(checksum, offset) != sum(block) - sum(checksum) + 8 * 0x20:
        _bad(offset, "tar header's checksum does not hold")
    if size > b"" and flag not in _SIZED and _number(size, offset):
        _bad(offset, "tar entry has content that its type has none of")
    prefix = _text(fields[15]) if (magic, version) == _USTAR else b""
    name = _text(name)
    return _Header(
        name=prefix + b"/" + name if prefix else name,
        mode=_number(mode, offset),
        uid=_number(uid, offset),
        gid=_number(gid, offset),
        size=_number(size, offset),
        flag=flag,
        linkname=_text(linkname),
        device=(_number(fields[13], offset), _number(fields[14], offset))
        if flag in b"34"
        else (0, 0),
        offset=offset,
    )


def _number(data: bytes, offset: int) -> int:
    """A numeric field: octal up to NUL or space, or base 256 where the first bit is set."""
    if data[0] & 0x80:
        if data[0] != 0x80:
            _bad(offset, "tar number is negative or too large")
        return int.from_bytes(data[1:], "big")
    digits = data.rstrip(b" \0").lstrip(b" ")
    if digits.strip(b"01234567"):
        _bad(offset, "tar number is not octal")
    return int(digits or b"0", 8)


def _text(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


# Extended headers --------------------------------------------------------------------------


def _extended(source: _Source, header: _Header, extension: _Extension) -> None:
    """A pax header (``x``): records ``length SP key = value LF``."""
    _once(header, extension)
    for key, value in _records(source, header):
        at = header.offset
        if key == b"path":
            _path_once(extension.path, at)
            extension.path = value
        elif key == b"linkpath":
            _path_once(extension.target, at)
            extension.target = value
        elif key in {b"size", b"uid", b"gid"}:
            extension.numbers[key.decode()] = _decimal(value, at)
        elif key.startswith(_XATTR):
            extension.xattrs[key.removeprefix(_XATTR)] = value
        elif key not in _HARMLESS and not key.startswith(_HARMLESS_PREFIXES):
            _bad(at, "pax record of a kind that is not known", ascii(key[:64]))


def _global(source: _Source, header: _Header, extension: _Extension) -> None:
    """A global pax header (``g``): runtimes ignore it, so it must not mean anything."""
    if extension.used:
        _bad(header.offset, "global pax header between a header and its entry")
    for key, _ in _records(source, header):
        if key != b"comment":
            _bad(header.offset, "global pax header with more than a comment", ascii(key[:64]))


def _long_name(source: _Source, header: _Header, extension: _Extension) -> None:
    _once(header, extension)
    _path_once(extension.path, header.offset)
    extension.path = _long(source, header)


def _long_target(source: _Source, header: _Header, extension: _Extension) -> None:
    _once(header, extension)
    _path_once(extension.target, header.offset)
    extension.target = _long(source, header)


_EXTENSIONS = {b"x": _extended, b"g": _global, b"L": _long_name, b"K": _long_target}
_SIZED = (b"0", b"\0", *_EXTENSIONS)


def _once(header: _Header, extension: _Extension) -> None:
    if header.flag in extension.used:
        _bad(header.offset, "two extended headers for one entry")
    extension.used.add(header.flag)


def _path_once(known: bytes | None, offset: int) -> None:
    if known is not None:
        _bad(offset, "two names for one entry")


def _long(source: _Source, header: _Header) -> bytes:
    """GNU's long name: text that ends with NUL."""
    data = _extension_data(source, header, MAX_PATH + 1)
    if not data.endswith(b"\0"):
        _bad(header.offset, "GNU long name does not end")
    return data[:-1]


def _records(source: _Source, header: _Header) -> Iterator[tuple[bytes, bytes]]:
    data = _extension_data(source, header, MAX_EXTENSION)
    start, seen = 0, set[bytes]()
    while start < len(data):
        space = data.find(b" ", start, start + 8)
        length = _decimal(data[start:space] if space > 0 else b"", header.offset)
        end = start + length
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or data[end - 1 : end] != b"\n" or not equals or not key:
            _bad(header.offset, "pax record is malformed")
        if key in seen or len(seen) >= MAX_RECORDS:
            _bad(header.offset, "pax records are doubled or too many", ascii(key[:64]))
        seen.add(key)
        yield key, value
        start = end


def _decimal(data: bytes, offset: int) -> int:
    if not data.isdigit() or len(data) > 19:
        _bad(offset, "pax number is not decimal", ascii(data[:32]))
    return int(data)


def _extension_data(source: _Source, header: _Header, limit: int) -> bytes:
    if header.size > limit:
        _bad(header.offset, "extended header is too long", str(header.size))
    data = source.take(header.size, "extended header")
    _padding(source, header.size)
    return data


# Entries -----------------------------------------------------------------------------------


def _entry(
    source: _Source, header: _Header, extension: _Extension, keep: Collection[bytes]
) -> TarEntry:
    kind = _KINDS.get(header.flag)
    if kind is None:
        _bad(header.offset, "tar entry of a type that layers do not have", ascii(header.flag))
    name = header.name if extension.path is None else extension.path
    path = _path(name, header.offset, may_end=kind is TarKind.DIRECTORY)
    numbers = extension.numbers
    size = numbers.get("size", header.size)
    if size > MAX_CONTENT or (size and kind is not TarKind.FILE):
        _bad(header.offset, "tar entry's size", str(size))
    digest, content = b"", None
    if kind is TarKind.FILE:
        digest, content = _content(source, size, keep=path in keep)
    return TarEntry(
        path=path,
        kind=kind,
        mode=header.mode & 0o7777,
        uid=_owner(numbers.get("uid", header.uid), header.offset),
        gid=_owner(numbers.get("gid", header.gid), header.offset),
        size=size,
        digest=digest,
        target=_target(kind, header, extension),
        device=header.device if kind in _DEVICES else (0, 0),
        xattrs=extension.xattrs,
        content=content,
        offset=header.offset,
    )


def _owner(value: int, offset: int) -> int:
    if value >= 1 << 32:
        _bad(offset, "tar owner is out of range", str(value))
    return value


def _target(kind: TarKind, header: _Header, extension: _Extension) -> bytes:
    target = header.linkname if extension.target is None else extension.target
    if kind not in _LINKS:
        return b""
    if kind is TarKind.HARD_LINK:
        return _path(target, header.offset, may_end=False)
    if not target or len(target) > MAX_PATH or b"\0" in target:
        _bad(header.offset, "symlink's target")
    return target


def _path(name: bytes, offset: int, *, may_end: bool) -> bytes:
    """A relative path without ``.``, ``..`` and empty parts; a leading ``./`` is dropped."""
    if len(name) > MAX_PATH or b"\0" in name:
        _bad(offset, "tar name is too long, or has a NUL")
    if may_end:
        name = name.removesuffix(b"/")
        if name == b".":
            return b""
    path = name.removeprefix(b"./")
    parts = path.split(b"/")
    if b"" in parts or b"." in parts or b".." in parts or max(map(len, parts)) > 255:
        _bad(offset, "tar name is not a path within the tree", ascii(name[:64]))
    return path


def _content(source: _Source, size: int, *, keep: bool) -> tuple[bytes, bytes | None]:
    hasher = hashlib.sha256()
    kept = bytearray() if keep else None
    if keep and size > MAX_KEPT:
        raise FormatError("file is too long to be kept", offset=source.offset, got=f"{size}")
    left = size
    while left:
        data = source.some(min(left, _CHUNK))
        if not data:
            raise FormatError("tar content runs past the end", offset=source.offset)
        hasher.update(data)
        if kept is not None:
            kept += data
        left -= len(data)
    _padding(source, size)
    return hasher.digest(), None if kept is None else bytes(kept)


def _padding(source: _Source, size: int) -> None:
    source.take(-size % BLOCK, "padding")


def _end(source: _Source) -> None:
    """Nothing but zeros until the stream ends."""
    while data := source.some(_CHUNK):
        if data.strip(b"\0"):
            raise FormatError("tar has trailing bytes", offset=source.offset - len(data))


def _bad(offset: int, message: str, got: str | None = None) -> NoReturn:
    raise FormatError(message, offset=offset, got=got)
