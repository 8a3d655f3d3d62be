"""What a dynamically linked ELF program needs at run time, and a kernel module's own words.

Source: System V ABI, ELF-64 object file format (gABI 4.1), little-endian. Only what the
initrd needs is read: the interpreter, ``DT_NEEDED``, and the ``.modinfo`` section.
"""

from __future__ import annotations

from dataclasses import dataclass

from catena.errors import FormatError
from catena.formats.reader import Reader

_HEADER_SIZE = 64
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 0, 1, 5, 10
_PROGRAM_HEADER, _SECTION_HEADER = 56, 64
_MAX_NEEDED = 256


class ElfError(FormatError):
    """Bytes that are not a 64-bit little-endian ELF file."""

    code = "malformed-elf"


@dataclass(frozen=True, slots=True)
class Linkage:
    """``interpreter`` is None for static programs and for libraries."""

    interpreter: str | None
    needed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def linkage(data: bytes) -> Linkage:
    """Which interpreter and libraries a program or library asks for. Raises ``FormatError``."""
    segments = _segments(data)
    interpreter = next((_content(data, one) for one in segments if one.kind == _PT_INTERP), None)
    dynamic = next((_content(data, one) for one in segments if one.kind == _PT_DYNAMIC), b"")
    names = _needed(data, dynamic, segments)
    return Linkage(None if interpreter is None else _text(interpreter, 0), names)


def module_info(data: bytes) -> dict[str, str]:
    """The ``key=value`` strings of a kernel module's ``.modinfo``; the first of each key."""
    header = _header(data)
    header.offset = 0x28
    table_at = header.uint(8, "section headers")
    header.offset = 0x3A
    entry_size, count, names_index = (header.uint(2, "section header") for _ in range(3))
    if entry_size != _SECTION_HEADER or names_index >= count:
        raise ElfError("unusual section headers", offset=0x3A)
    reader = Reader(data, order="little", start=table_at)
    sections = [_section(reader) for _ in range(count)]
    names = _slice(data, *sections[names_index][1:])
    for name_at, offset, size in sections:
        if _text(names, name_at) == ".modinfo":
            return _modinfo(_slice(data, offset, size))
    raise ElfError("no .modinfo section: not a kernel module")


def _header(data: bytes) -> Reader:
    reader = Reader(data, order="little")
    if reader.take(6, "ELF header") != b"\x7fELF\x02\x01":
        raise ElfError("not a 64-bit little-endian ELF file", got=ascii(data[:6]))
    reader.take(_HEADER_SIZE - 6, "ELF header")
    return reader


def _segments(data: bytes) -> list[_Segment]:
    header = _header(data)
    header.offset = 0x20
    table_at = header.uint(8, "program headers")
    header.offset = 0x36
    entry_size, count = header.uint(2, "entry size"), header.uint(2, "entry count")
    if count and entry_size != _PROGRAM_HEADER:
        raise ElfError("unusual program headers", offset=0x36, got=f"{entry_size}")
    reader = Reader(data, order="little", start=table_at)
    return [_segment(reader) for _ in range(count)]


def _segment(reader: Reader) -> _Segment:
    kind = reader.uint(4, "segment type")
    reader.take(4, "segment flags")
    offset, address = reader.uint(8, "segment offset"), reader.uint(8, "segment address")
    reader.take(8, "physical address")
    size = reader.uint(8, "segment size")
    reader.take(16, "segment memory")
    return _Segment(kind, offset, address, size)


def _section(reader: Reader) -> tuple[int, int, int]:
    """Name offset, file offset and size of one section."""
    name_at = reader.uint(4, "section name")
    reader.take(20, "section header")
    offset, size = reader.uint(8, "section offset"), reader.uint(8, "section size")
    reader.take(24, "section header")
    return name_at, offset, size


def _needed(data: bytes, dynamic: bytes, segments: list[_Segment]) -> tuple[str, ...]:
    reader = Reader(dynamic, order="little")
    wanted: list[int] = []
    strings = {_DT_STRTAB: 0, _DT_STRSZ: 0}
    while reader.remaining >= 16:
        tag, value = reader.uint(8, "dynamic tag"), reader.uint(8, "dynamic value")
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            wanted.append(value)
        elif tag in strings:
            strings[tag] = value
    if not wanted:
        return ()
    if len(wanted) > _MAX_NEEDED:
        raise ElfError("too many libraries", got=f"{len(wanted)}")
    at = _file_offset(strings[_DT_STRTAB], segments)
    table = _slice(data, at, strings[_DT_STRSZ])
    return tuple(_text(table, offset) for offset in wanted)


def _file_offset(address: int, segments: list[_Segment]) -> int:
    for one in segments:
        if one.kind == _PT_LOAD and one.address <= address < one.address + one.size:
            return address - one.address + one.offset
    raise ElfError("string table is outside the file", got=hex(address))


def _content(data: bytes, segment: _Segment) -> bytes:
    return _slice(data, segment.offset, segment.size)


def _slice(data: bytes, offset: int, size: int) -> bytes:
    return Reader(data, order="little", start=offset).take(size, "ELF part")


def _text(table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset)
    if end < 0:
        raise ElfError("string without an end", offset=offset)
    return table[offset:end].decode("latin-1")


def _modinfo(section: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in section.split(b"\0"):
        key, _, value = line.decode("latin-1").partition("=")
        if key:
            found.setdefault(key, value)
    return found
