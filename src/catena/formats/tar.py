"""Tar archives (POSIX.1-2017, pax, "ustar Interchange Format"), in one pass over a stream.

Headers are blocks of 512 bytes; a file's content follows its header, filled up to a whole block:

======  ==========================================  =======================================
offset  field                                       here
======  ==========================================  =======================================
0, 345  name, and prefix of a ustar header          joined; ``./`` before and ``/`` behind go
124     size, octal, or binary as GNU tar writes    of files only
148     checksum                                    must hold
156     type: file, links, folder, devices, pipe    pax (``x``) and GNU (``L``, ``K``) long names
======  ==========================================  =======================================

Two blocks of zeros end the archive; only zeros may follow. Sparse files are refused, and so are
global pax headers that would name files. Nothing is unpacked: who reads an entry's content asks
for it while the entry is the last one that was yielded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from catena.errors import FormatError

MAX_ENTRIES = 500_000
MAX_EXTENSION = 64 * 1024
"""Of a pax header or a long name."""
REGULAR, HARD_LINK, FOLDER = (b"0", b"\0"), b"1", b"5"
OTHERS = (b"2", b"3", b"4", b"6")
"""Symbolic links, devices and pipes."""

_BLOCK = 512
_CHUNK = 1024 * 1024
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"
_PAX_KEYS = (b"path", b"linkpath", b"size")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its name, its type as the header has it, a hard link's target, its size."""

    name: str
    kind: bytes
    target: str
    size: int


class Archive:
    """A tar archive over chunks of bytes; ``size`` bytes and ``headers`` were read so far."""

    __slots__ = ("_at", "_chunk", "_chunks", "_left", "headers", "size")

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0
        self._left = 0
        self.size = 0
        self.headers = 0

    def entries(self) -> Iterator[Entry]:
        """Every entry, in order. Raises ``FormatError`` where the archive is damaged."""
        long: dict[str, str] = {}
        while (header := self._header()) is not None:
            kind = header[156:157]
            size = _number(header[124:136])
            if kind in {_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK}:
                long |= self._extension(kind, size)
                continue
            self._left = size if kind in REGULAR else 0
            entry = _entry(header, kind, self._left, long)
            padding = -entry.size % _BLOCK
            yield entry
            self._skip(self._left + padding)
            long = {}
        if long:
            raise FormatError("tar archive ends behind an extension", offset=self.size)

    def content(self, limit: int) -> bytes:
        """The content of the entry that was yielded last, at most ``limit`` bytes, once."""
        size = self._left
        if size > limit:
            raise FormatError(
                "file in tar archive is too large", expected=f"at most {limit}", got=f"{size}"
            )
        self._left = 0
        return self._take(size)

    def _header(self) -> bytes | None:
        """The next header, or None at the end of the archive."""
        block = self._take(_BLOCK)
        if not block.strip(b"\0"):
            self._end()
            return None
        self.headers += 1
        if self.headers > MAX_ENTRIES:
            raise FormatError("tar archive has too many entries", expected=f"{MAX_ENTRIES}")
        if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
            raise FormatError("tar header has a wrong checksum")
        return block

    def _end(self) -> None:
        zeros = 0
        while chunk := self._some(_CHUNK):
            zeros += len(chunk)
            if chunk.strip(b"\0"):
                raise FormatError("tar archive has bytes behind its end")
        if zeros < _BLOCK or zeros % _BLOCK:
            raise FormatError("tar archive is truncated", expected="two blocks of zeros")

    def _extension(self, kind: bytes, size: int) -> dict[str, str]:
        if size > MAX_EXTENSION:
            raise FormatError("tar extension is too long", expected=f"at most {MAX_EXTENSION}")
        content = self._take(size)
        self._skip(-size % _BLOCK)
        if kind == _PAX_GLOBAL:
            if _pax(content):
                raise FormatError("tar archive names all its files at once")
            return {}
        if kind == _PAX:
            return _pax(content)
        return {"path" if kind == _GNU_NAME else "linkpath": _text(content.rstrip(b"\0"))}

    def _skip(self, size: int) -> None:
        while size:
            part = self._some(min(size, _CHUNK))
            if not part:
                raise FormatError("tar archive is truncated", expected=f"{size} bytes more")
            size -= len(part)

    def _take(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            part = self._some(size)
            if not part:
                raise FormatError("tar archive is truncated", expected=f"{size} bytes more")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _some(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        while self._at == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._chunk, self._at = chunk, 0
        part = self._chunk[self._at : self._at + size]
        self._at += len(part)
        self.size += len(part)
        return part


def _entry(header: bytes, kind: bytes, size: int, long: dict[str, str]) -> Entry:
    if long.get("size", str(size)) != str(size):
        raise FormatError("tar entry has two sizes", expected=f"{size}")
    name = _field(header[:100])
    if header[257:263] == b"ustar\0" and (prefix := _field(header[345:500])):
        name = f"{prefix}/{name}"
    target = long.get("linkpath", _field(header[157:257])) if kind == HARD_LINK else ""
    return Entry(_clean(long.get("path", name)), kind, _clean(target) if target else "", size)


def _clean(name: str) -> str:
    """The name without ``./`` and ``/`` at its end. One that leaves the archive is refused."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts:
        raise FormatError("tar entry leaves the archive", got=ascii(name[:120]))
    return "/".join(parts)


def _pax(content: bytes) -> dict[str, str]:
    """What names files in records ``LENGTH SP key=value LF`` (pax, "pax Extended Header")."""
    found: dict[str, str] = {}
    at = 0
    while at < len(content):
        digits, space, _ = content[at : at + 8].partition(b" ")
        size = int(digits) if space and digits.isdigit() else 0
        record = content[at : at + size]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if size <= len(digits) + 1 or len(record) != size or not equals or record[-1:] != b"\n":
            raise FormatError("tar archive has a bad pax header")
        if key.startswith(b"GNU.sparse"):
            raise FormatError("tar archive has a sparse file")
        if key in _PAX_KEYS:
            found[key.decode()] = _text(value)
        at += size
    return found


def _number(digits: bytes) -> int:
    """A number in octal, or in GNU tar's binary form."""
    if digits[0] & 0x80:
        return int.from_bytes(digits, "big") - (0x80 << 8 * (len(digits) - 1))
    text = digits.strip(b" \0")
    if not text or text.strip(b"01234567"):
        raise FormatError("tar header has a bad number", got=ascii(text[:16]))
    return int(text, 8)


def _field(field: bytes) -> str:
    return _text(field.partition(b"\0")[0])


def _text(name: bytes) -> str:
    if b"\0" in name:
        raise FormatError("tar entry has a name with a zero byte")
    return name.decode("utf-8", "surrogateescape")
