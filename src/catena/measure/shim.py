"""What shim measures of itself before it starts the second stage (shim, ``mok.c``, ``sbat.c``).

With machine owner keys untouched, shim mirrors its vendor's keys and measures them into PCR 14,
and the revocation level that it applies into PCR 7. Both are in the image::

    .vendor_cert   authorised size u32 | revoked size u32 | their offsets u32, u32 | content
    .sbatlevel     version u32 | offsets from here: previous u32, latest u32 | texts with NUL
"""

from __future__ import annotations

from dataclasses import dataclass

from catena.errors import FormatError
from catena.formats import efi
from catena.formats.efi import EFI_CERT_X509, SHIM_LOCK, SignatureEntry, SignatureList, VariableData
from catena.formats.pe import PeImage
from catena.formats.reader import Reader

GENERATIONS = (4,)
"""Generations of shim (``.sbat``) whose measurements real boots have confirmed."""

TRUSTED = b"\1"
"""Content of MokListTrusted: keys of the owner are used."""

FIRST_LEVEL = b"sbat,1,2021030218\n"

_LEVEL_HEADER = 4
_MAX_LEVEL = 1024


@dataclass(frozen=True, slots=True)
class ShimMeasurements:
    """Contents measured into PCR 14 by name, and the SbatLevel variable for PCR 7."""

    owner_keys: tuple[tuple[str, bytes], ...]
    level: bytes

    @property
    def accepted(self) -> bytes:
        """Signature lists of what shim accepts beside db."""
        return self.owner_keys[0][1]

    @property
    def revoked(self) -> bytes:
        """Signature lists of what shim refuses beside dbx."""
        return self.owner_keys[1][1]


def measurements(
    image: PeImage, *, secure_boot: bool, stored_level: bytes = b""
) -> ShimMeasurements:
    """Read them from the image. Raises ``FormatError`` for a shim without these sections.

    Without Secure Boot nothing is revoked: shim wants no more than the first level there ever
    was. ``stored_level`` stays if it is newer than the one that shim wants.
    """
    level = _level(image) if secure_boot else FIRST_LEVEL
    if _date(stored_level) > _date(level):
        level = stored_level
    authorised, revoked = _vendor_keys(image)
    return ShimMeasurements(
        owner_keys=(
            ("MokList", authorised),
            ("MokListX", revoked),
            ("MokListTrusted", TRUSTED),
        ),
        level=VariableData(SHIM_LOCK, "SbatLevel", level).encode(),
    )


def _date(level: bytes) -> bytes:
    """The third field of the first line: "sbat,1,2025021800"."""
    fields = level.split(b"\n", 1)[0].split(b",")
    return fields[2] if len(fields) > 2 else b""


def _vendor_keys(image: PeImage) -> tuple[bytes, bytes]:
    """The vendor's certificate as a signature list, and its revocations as they are."""
    content = _section(image, ".vendor_cert")
    reader = Reader(content, order="little")
    sizes = reader.uint(4, "vendor keys"), reader.uint(4, "vendor keys")
    authorised, revoked = (
        Reader(content, order="little", start=reader.uint(4, "vendor keys")).take(size, "keys")
        for size in sizes
    )
    if authorised and not efi.holds_signature_lists(authorised):
        entry = SignatureEntry(SHIM_LOCK, authorised)
        authorised = SignatureList(EFI_CERT_X509, (entry,)).encode()
    return authorised, revoked


def _level(image: PeImage) -> bytes:
    """The level that shim applies unless told otherwise: its "previous" one."""
    content = _section(image, ".sbatlevel")
    reader = Reader(content, order="little")
    reader.take(_LEVEL_HEADER, "version")
    start = _LEVEL_HEADER + reader.uint(4, "offset of the level")
    level, end, _ = content[start : start + _MAX_LEVEL].partition(b"\0")
    if not end:
        raise FormatError("shim's SBAT level has no end", offset=start)
    return level


def _section(image: PeImage, name: str) -> bytes:
    section = image.section(name)
    if section is None:
        raise FormatError("shim lacks a section", expected=name)
    return image.content(section)
