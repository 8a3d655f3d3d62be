"""GUID partition tables (UEFI 2.10, chapter 5.3), 512-byte sectors, little-endian.

::

    LBA 0      protective MBR
    LBA 1      header: "EFI PART", revision u32, size u32 (92), CRC-32 u32, 0 u32, own LBA u64,
               other header's LBA u64, first and last usable LBA u64, disk GUID, first LBA of
               entries u64, entries u32 (128), entry size u32 (128), CRC-32 of entries u32
    LBA 2–33   entries: type GUID, partition GUID, first LBA u64, last LBA u64, attributes u64,
               name UTF-16LE (72 bytes)
    end-33…    entries again, then the backup header in the last sector

Firmware measures ``UEFI_GPT_DATA`` into PCR 5 (TCG PC Client PFP 1.05, 10.2.9): the primary
header, the number of used entries u64, and those entries.
"""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass

from catena.errors import FormatError
from catena.formats.reader import Reader

SECTOR = 512
HEADER_SIZE = 92
ENTRY_SIZE = 128
ENTRY_COUNT = 128
TABLE_SECTORS = ENTRY_COUNT * ENTRY_SIZE // SECTOR
MAX_PARTITIONS = 1024
FIRST_USABLE = 2 + TABLE_SECTORS

SIGNATURE = b"EFI PART"
_REVISION = 0x00010000
_NAME_SIZE = 72
_GUID_SIZE = 16
_MBR_TYPE_GPT = 0xEE


class GptError(FormatError):
    """Bytes that are not a well-formed GUID partition table."""

    code = "malformed-gpt"


@dataclass(frozen=True, slots=True)
class Partition:
    """One used entry; ``last_lba`` is inclusive."""

    type_guid: uuid.UUID
    guid: uuid.UUID
    first_lba: int
    last_lba: int
    attributes: int
    name: str

    @property
    def size(self) -> int:
        """Size in bytes."""
        return (self.last_lba - self.first_lba + 1) * SECTOR

    def encode(self) -> bytes:
        """The entry's 128 bytes. Raises ``GptError`` for a name that does not fit."""
        name = self.name.encode("utf-16-le")
        if len(name) > _NAME_SIZE:
            raise GptError("partition name is too long", got=ascii(self.name[:40]))
        return (
            self.type_guid.bytes_le
            + self.guid.bytes_le
            + b"".join(_u64(field) for field in (self.first_lba, self.last_lba, self.attributes))
            + name.ljust(_NAME_SIZE, b"\0")
        )


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """The table of a disk of ``sectors`` sectors; ``partitions`` in entry order."""

    disk_guid: uuid.UUID
    sectors: int
    partitions: tuple[Partition, ...]

    @property
    def last_usable(self) -> int:
        """The last LBA that a partition may use."""
        return self.sectors - TABLE_SECTORS - 2

    def encode_start(self) -> bytes:
        """Protective MBR, primary header and entries: LBA 0 to 33."""
        header = self._header(own=1, other=self.sectors - 1, entries_at=2)
        return _protective_mbr(self.sectors) + header.ljust(SECTOR, b"\0") + self._entries()

    def encode_end(self) -> bytes:
        """Backup entries and header: the last 33 sectors."""
        header = self._header(own=self.sectors - 1, other=1, entries_at=self.last_usable + 1)
        return self._entries() + header.ljust(SECTOR, b"\0")

    def event_data(self) -> bytes:
        """UEFI_GPT_DATA as firmware measures it into PCR 5."""
        header = self._header(own=1, other=self.sectors - 1, entries_at=2)
        entries = b"".join(partition.encode() for partition in self.partitions)
        return header + _u64(len(self.partitions)) + entries

    def _entries(self) -> bytes:
        used = b"".join(partition.encode() for partition in self.partitions)
        return used.ljust(ENTRY_COUNT * ENTRY_SIZE, b"\0")

    def _header(self, *, own: int, other: int, entries_at: int) -> bytes:
        places = (own, other, FIRST_USABLE, self.last_usable)
        tail = (
            b"".join(_u64(place) for place in places)
            + self.disk_guid.bytes_le
            + _u64(entries_at)
            + _u32(ENTRY_COUNT)
            + _u32(ENTRY_SIZE)
            + _u32(zlib.crc32(self._entries()))
        )
        start = SIGNATURE + _u32(_REVISION) + _u32(HEADER_SIZE)
        crc = zlib.crc32(start + bytes(8) + tail)
        return start + _u32(crc) + bytes(4) + tail


def parse(data: bytes) -> PartitionTable:
    """Read the start of a disk (at least 34 sectors) with catena's geometry.

    Raises ``FormatError`` for other geometries, wrong checksums and partitions that overlap
    or leave the usable range.
    """
    reader = Reader(data, order="little")
    reader.take(SECTOR, "protective MBR")
    header_sector = reader.take(SECTOR, "GPT header")
    table, entries_crc = _parse_header(header_sector[:HEADER_SIZE])
    raw = reader.take(ENTRY_COUNT * ENTRY_SIZE, "GPT entries")
    if zlib.crc32(raw) != entries_crc:
        raise GptError("GPT entries do not match their checksum", offset=2 * SECTOR)
    parsed = [
        _parse_entry(raw[at : at + ENTRY_SIZE], 2 * SECTOR + at)
        for at in range(0, len(raw), ENTRY_SIZE)
    ]
    used = tuple(partition for partition in parsed if partition is not None)
    table = PartitionTable(table.disk_guid, table.sectors, used)
    _check_layout(table)
    return table


@dataclass(frozen=True, slots=True)
class MeasuredTable:
    """UEFI_GPT_DATA of any disk, as a log has it; used entries only."""

    disk_guid: uuid.UUID
    partitions: tuple[Partition, ...]


def parse_event(data: bytes) -> MeasuredTable:
    """Read UEFI_GPT_DATA (PFP 1.06, 10.2.9) of a disk of any geometry. Raises ``FormatError``.

    The header's checksums cover what is on the disk and not in the event: they are not checked.
    """
    reader = Reader(data, order="little")
    if reader.take(8, "GPT signature") != SIGNATURE:
        raise GptError("no GPT header", expected="EFI PART")
    reader.take(48, "GPT header")
    disk_guid = uuid.UUID(bytes_le=reader.take(16, "disk GUID"))
    reader.take(HEADER_SIZE - 72, "GPT header")
    count = reader.uint(8, "number of partitions")
    if count > MAX_PARTITIONS:
        raise GptError("too many partitions", offset=HEADER_SIZE, got=f"{count}")
    partitions = []
    for _ in range(count):
        offset = reader.offset
        entry = _parse_entry(reader.take(ENTRY_SIZE, "GPT entry"), offset)
        if entry is not None:
            partitions.append(entry)
    reader.done("UEFI_GPT_DATA")
    return MeasuredTable(disk_guid, tuple(partitions))


def measured_data(start: bytes) -> bytes:
    """UEFI_GPT_DATA of a disk, as firmware measures it: header, count, used entries.

    ``start`` is the beginning of the disk, up to the end of its entries; their number is free,
    both checksums must hold. Raises ``FormatError``.
    """
    disk = Reader(start, order="little")
    disk.take(SECTOR, "protective MBR")
    header = disk.take(HEADER_SIZE, "GPT header")
    reader = Reader(header, order="little")
    if reader.take(8, "GPT signature") != SIGNATURE:
        raise GptError("no GPT header", offset=SECTOR, expected="EFI PART")
    reader.take(8, "revision and size")
    if reader.uint(4, "checksum") != zlib.crc32(header[:16] + bytes(4) + header[20:]):
        raise GptError("GPT header does not match its checksum", offset=SECTOR + 16)
    reader.take(52, "GPT header")
    at, count, size, crc = (reader.uint(width, "entries") for width in (8, 4, 4, 4))
    if count > MAX_PARTITIONS or size != ENTRY_SIZE:
        raise GptError("GPT entries of another kind", offset=SECTOR + 80, got=f"{count} × {size}")
    place = min(at * SECTOR, len(start))
    raw = Reader(start, order="little", start=place).take(count * size, "GPT entries")
    if zlib.crc32(raw) != crc:
        raise GptError("GPT entries do not match their checksum", offset=place)
    used = [raw[n : n + size] for n in range(0, len(raw), size) if any(raw[n : n + _GUID_SIZE])]
    return header + _u64(len(used)) + b"".join(used)


def _parse_header(header: bytes) -> tuple[PartitionTable, int]:
    """The table without its entries, and the entries' checksum."""
    reader = Reader(header, order="little")
    if reader.take(8, "GPT signature") != SIGNATURE:
        raise GptError("no GPT header", offset=SECTOR, expected="EFI PART")
    if (reader.uint(4, "revision"), reader.uint(4, "size")) != (_REVISION, HEADER_SIZE):
        raise GptError("GPT header of another version", offset=SECTOR + 8)
    if reader.uint(4, "checksum") != zlib.crc32(header[:16] + bytes(4) + header[20:]):
        raise GptError("GPT header does not match its checksum", offset=SECTOR + 16)
    reader.take(4, "reserved")
    own, other, first, last = (reader.uint(8, "LBA") for _ in range(4))
    disk_guid = uuid.UUID(bytes_le=reader.take(16, "disk GUID"))
    table = PartitionTable(disk_guid, other + 1, ())
    geometry = (reader.uint(8, "LBA"), reader.uint(4, "entries"), reader.uint(4, "entry size"))
    found = (own, first, last, *geometry)
    expected = (1, FIRST_USABLE, table.last_usable, 2, ENTRY_COUNT, ENTRY_SIZE)
    if found != expected or header[20:24] != bytes(4):
        raise GptError(
            "GPT of another geometry", offset=SECTOR, expected=f"{expected}", got=f"{found}"
        )
    return table, reader.uint(4, "checksum of entries")


def _parse_entry(raw: bytes, offset: int) -> Partition | None:
    """One entry, or None if it is unused."""
    reader = Reader(raw, order="little")
    type_guid = uuid.UUID(bytes_le=reader.take(16, "type GUID"))
    if not type_guid.int:
        return None
    guid = uuid.UUID(bytes_le=reader.take(16, "partition GUID"))
    first, last, attributes = (reader.uint(8, "partition") for _ in range(3))
    name = reader.take(_NAME_SIZE, "partition name")
    try:
        text = name.decode("utf-16-le").rstrip("\0")
    except UnicodeDecodeError as error:
        raise GptError("partition name is not UTF-16", offset=offset + 56) from error
    return Partition(type_guid, guid, first, last, attributes, text)


def _check_layout(table: PartitionTable) -> None:
    free = FIRST_USABLE
    for partition in sorted(table.partitions, key=lambda one: one.first_lba):
        if not free <= partition.first_lba <= partition.last_lba <= table.last_usable:
            raise GptError(
                "partition overlaps another or the table",
                expected=f"LBA {free} to {table.last_usable}",
                got=f"{partition.first_lba} to {partition.last_lba}",
            )
        free = partition.last_lba + 1


def _protective_mbr(sectors: int) -> bytes:
    """One partition of type 0xEE over the whole disk (UEFI 2.10, 5.2.3)."""
    size = min(sectors - 1, 0xFFFFFFFF)
    entry = b"\x00\x00\x02\x00" + bytes([_MBR_TYPE_GPT]) + b"\xff\xff\xff" + _u32(1) + _u32(size)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")
