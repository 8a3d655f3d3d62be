"""What an attacker does to a disk: replace a file on the ESP, rebuild a kernel image.

The tools are the ones everybody has (mtools); the images are made with catena's own builder,
because an insider has that, too.
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

from catena.errors import NotFound
from catena.formats import gpt, pe
from catena.keys.hierarchy import KeyFolder, KeyName
from catena.lab import tools
from catena.osimage import authenticode, uki
from catena.osimage.disk import ESP_TYPE
from catena.osimage.tool import EFI_STUB, MCOPY

_SECONDS = 60.0
_HEAD = 64 * 1024
_PARTS = (".osrel", ".cmdline", ".initrd", ".linux")


class NoSuchPartition(NotFound):
    """The disk has no partition of the type that is to be changed."""

    code = "no-such-partition"
    remedy = "Give a disk that `catena os build` made."


def partition(disk: Path, kind: uuid.UUID) -> gpt.Partition:
    """The first partition of this type. Raises ``NoSuchPartition``."""
    with disk.open("rb") as image:
        table = gpt.parse(image.read(_HEAD))
    found = next((one for one in table.partitions if one.type_guid == kind), None)
    if found is None:
        raise NoSuchPartition(f"{disk} has no partition of type {kind}")
    return found


def replace_file(disk: Path, path: str, content: bytes) -> None:
    """Overwrite a file on the disk's EFI system partition."""
    offset = partition(disk, ESP_TYPE).first_lba * gpt.SECTOR
    with tempfile.NamedTemporaryFile() as source:
        source.write(content)
        source.flush()
        tools.run(
            MCOPY, ("-o", "-i", f"{disk}@@{offset}", source.name, f"::{path}"), seconds=_SECONDS
        )


def unsigned(image: bytes) -> bytes:
    """The same kernel image, never signed."""
    return uki.assemble(EFI_STUB.path().read_bytes(), _parts(image))


def resigned_with(image: bytes, words: bytes, keys: KeyFolder) -> bytes:
    """The same kernel image with ``words`` added to its command line, signed with db."""
    parts = [
        uki.Part(part.name, part.content + words if part.name == ".cmdline" else part.content)
        for part in _parts(image)
    ]
    rebuilt = uki.assemble(EFI_STUB.path().read_bytes(), parts)
    return authenticode.sign(rebuilt, keys.signer(KeyName.DB), keys.certificate(KeyName.DB))


def _parts(image: bytes) -> list[uki.Part]:
    parsed = pe.parse(image)
    return [
        uki.Part(name, parsed.content(section))
        for name in _PARTS
        if (section := parsed.section(name)) is not None
    ]
