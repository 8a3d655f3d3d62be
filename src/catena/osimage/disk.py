"""A release's disk: a GUID partition table with ESP, root and hash partitions.

Types and names follow the Discoverable Partitions Specification (UAPI.2) for x86-64; the UKI lies
where firmware looks without being told, ``EFI/BOOT/BOOTX64.EFI``. GUIDs, FAT serial number and
dates derive from the release, so the same release gives the same disk.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from catena.formats.gpt import SECTOR, TABLE_SECTORS, Partition, PartitionTable
from catena.osimage import verity
from catena.osimage.tool import MCOPY, MKFS_VFAT, MMD, run
from catena.osimage.verity import HashTree

ESP_TYPE = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
ROOT_X86_64_TYPE = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
ROOT_VERITY_X86_64_TYPE = uuid.UUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")

_MIB = 1024 * 1024
_ALIGNMENT = _MIB // SECTOR
_READ_ONLY = 1 << 60
MINIMUM_ESP = 64 * _MIB
_ESP_SPARE = 16 * _MIB
_FAT_EPOCH = 315532800
"""1980-01-01, the first date that FAT can store."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes onto the disk; ``root_image`` is the file that ``tree`` was made from."""

    identity: bytes
    uki: Path
    root_image: Path
    tree: HashTree


def build(contents: Contents, output: Path, room: Path) -> PartitionTable:
    """Write the disk image, sparse, using ``room`` for a scratch file.

    Raises ``MissingTool`` or ``ToolFailed``.
    """
    esp_size = max(MINIMUM_ESP, _rounded(contents.uki.stat().st_size + _ESP_SPARE))
    table = _layout(contents, esp_size)
    esp = room / "esp.img"
    serial = derived_guid(contents.identity, "fat").hex[:8]
    make_esp(esp, esp_size, serial, {"/EFI/BOOT/BOOTX64.EFI": contents.uki})
    with output.open("xb") as disk:
        disk.truncate(table.sectors * SECTOR)
        disk.write(table.encode_start())
        for partition, source in zip(table.partitions, (esp, contents.root_image), strict=False):
            copy_sparse(source, disk, partition.first_lba * SECTOR)
        disk.seek(table.partitions[2].first_lba * SECTOR)
        disk.write(contents.tree.partition)
        disk.seek((table.last_usable + 1) * SECTOR)
        disk.write(table.encode_end())
    esp.unlink()
    return table


def _layout(contents: Contents, esp_size: int) -> PartitionTable:
    root_guid, hash_guid = verity.partition_guids(contents.tree.root.root_hash)
    plan = (
        (ESP_TYPE, derived_guid(contents.identity, "esp"), esp_size, 0, "esp"),
        (ROOT_X86_64_TYPE, root_guid, contents.root_image.stat().st_size, _READ_ONLY, "root"),
        (
            ROOT_VERITY_X86_64_TYPE,
            hash_guid,
            len(contents.tree.partition),
            _READ_ONLY,
            "root-verity",
        ),
    )
    start = _ALIGNMENT
    partitions = []
    for type_guid, guid, size, attributes, name in plan:
        sectors = _rounded(size) // SECTOR
        partitions.append(Partition(type_guid, guid, start, start + sectors - 1, attributes, name))
        start += sectors
    sectors = start + TABLE_SECTORS + 1
    return PartitionTable(derived_guid(contents.identity, "disk"), sectors, tuple(partitions))


def derived_guid(identity: bytes, purpose: str) -> uuid.UUID:
    """A GUID (RFC 9562 version 8) that belongs to this release and purpose."""
    digest = hashlib.sha256(b"catena/guid/v1\n" + purpose.encode() + b"\n" + identity).digest()
    fields = bytearray(digest[:16])
    fields[6] = fields[6] & 0x0F | 0x80
    fields[8] = fields[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(fields))


def make_esp(esp: Path, size: int, serial: str, files: Mapping[str, Path]) -> None:
    """A FAT file system of ``size`` bytes with ``files`` by path. Raises ``ToolFailed``."""
    with esp.open("xb") as file:
        file.truncate(size)
    run(MKFS_VFAT, ("--invariant", "-F", "32", "-n", "ESP", "-i", serial, str(esp)))
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"/"}
    run(MMD, ("-i", str(esp), *(f"::{one}" for one in sorted(folders))), epoch=_FAT_EPOCH)
    for path, source in files.items():
        run(MCOPY, ("-i", str(esp), str(source), f"::{path}"), epoch=_FAT_EPOCH)


def copy_sparse(source: Path, disk: BinaryIO, offset: int) -> None:
    """Copy a file to ``offset``, leaving holes where it is zero."""
    with source.open("rb") as file:
        for chunk in iter(lambda: file.read(_MIB), b""):
            if chunk.count(0) != len(chunk):
                disk.seek(offset)
                disk.write(chunk)
            offset += len(chunk)


def _rounded(size: int) -> int:
    return size + -size % _MIB
