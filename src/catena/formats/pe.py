r"""Portable Executable images as UEFI loads them, and their Authenticode digest.

Sources: Microsoft PE Format (2024-03), "Windows Authenticode Portable Executable Signature
Format" 1.0 (2008), UEFI 2.10 section 32.5. Little-endian::

    0x3C   u32   offset of "PE\0\0"
    PE+4   COFF header, 20 bytes: machine u16, sections u16, …, optional header size u16 at 16
    PE+24  optional header: magic u16 (0x10B PE32, 0x20B PE32+), …, checksum u32 at 64, …,
           data directories at 96 (PE32) or 112 (PE32+), 8 bytes each; entry 4 (*security*)
           is a file offset and size: the attribute certificate table
    …      section table, 40 bytes per section
    …      WIN_CERTIFICATE: length u32, revision u16, type u16, content; padded to 8 bytes

The Authenticode digest covers the file but for the checksum, the security directory entry
and the certificate table. This module computes it; it does not verify signatures.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from catena.errors import FormatError
from catena.formats.reader import Reader
from catena.ids import HashAlg

MAX_SECTIONS = 96
MAX_CERTIFICATES = 16
MAX_ZERO_FILL = 16 * 1024 * 1024
"""Zeros that loading adds behind what the file has of a section: more is refused."""

PKCS_SIGNED_DATA = 0x0002
"""WIN_CERT_TYPE_PKCS_SIGNED_DATA."""
CERTIFICATE_REVISION = 0x0200
CERTIFICATE_ALIGNMENT = 8
SECTION_HEADER_SIZE = 40

_PE_POINTER = 0x3C
_SYMBOL_SIZE = 18
_LONG_NAME = 64
_CHECKSUM = 64
_SECURITY = 4
_DIRECTORY_OFFSETS = {0x10B: 96, 0x20B: 112}


class PeError(FormatError):
    """Bytes that are not a well-formed PE image."""

    code = "malformed-pe"


@dataclass(frozen=True, slots=True)
class Section:
    """One entry of the section table; offsets and sizes in bytes."""

    name: str
    virtual_size: int
    virtual_address: int
    raw_size: int
    raw_offset: int
    characteristics: int


@dataclass(frozen=True, slots=True)
class WinCertificate:
    """One entry of the attribute certificate table (UEFI 2.10, 32.5.1)."""

    revision: int
    type: int
    content: bytes


@dataclass(frozen=True, slots=True)
class PeImage:
    """A parsed image. ``*_at`` fields are file offsets of the header fields they name."""

    data: bytes
    machine: int
    coff_at: int
    optional_at: int
    checksum_at: int
    security_at: int
    section_table_at: int
    section_alignment: int
    file_alignment: int
    size_of_headers: int
    size_of_image: int
    certificates_at: int
    certificates_size: int
    sections: tuple[Section, ...]

    def section(self, name: str) -> Section | None:
        """The section of this name. Raises ``PeError`` if there are several."""
        found = [section for section in self.sections if section.name == name]
        if len(found) > 1:
            raise PeError("image has a section twice", got=ascii(name))
        return found[0] if found else None

    def content(self, section: Section) -> bytes:
        """What the section holds once loaded: ``virtual_size`` bytes, zero-filled.

        Raises ``PeError`` where a small file would ask for much memory.
        """
        stored = min(section.raw_size, section.virtual_size)
        if section.virtual_size - stored > MAX_ZERO_FILL:
            raise PeError("section is too large", got=f"{section.virtual_size} bytes")
        content = self.data[section.raw_offset : section.raw_offset + stored]
        return content + bytes(section.virtual_size - stored)

    def authenticode(self, algorithm: HashAlg) -> bytes:
        """The Authenticode digest, steps as in "Calculating the PE Image Hash"."""
        view = memoryview(self.data)
        digest = hashlib.new(algorithm.value)
        # (3)–(7) the headers without checksum and security directory entry
        digest.update(view[: self.checksum_at])
        digest.update(view[self.checksum_at + 4 : self.security_at])
        digest.update(view[self.security_at + 8 : self.size_of_headers])
        # (8)–(13) the sections in file order
        hashed = self.size_of_headers
        for section in sorted(self.sections, key=lambda one: one.raw_offset):
            if section.raw_size:
                digest.update(view[section.raw_offset : section.raw_offset + section.raw_size])
                hashed += section.raw_size
        # (14) what follows the sections, up to the certificate table
        digest.update(view[hashed : len(self.data) - self.certificates_size])
        return digest.digest()

    def certificates(self) -> tuple[WinCertificate, ...]:
        """The attribute certificates; empty for an unsigned image."""
        end = self.certificates_at + self.certificates_size
        reader = Reader(self.data, order="little", start=self.certificates_at, end=end)
        found: list[WinCertificate] = []
        while reader.remaining and len(found) < MAX_CERTIFICATES:
            found.append(_certificate(reader))
        reader.done("certificate table")
        return tuple(found)


def parse(data: bytes) -> PeImage:
    """Read the headers of an image. Raises ``FormatError``."""
    if data[:2] != b"MZ":
        raise PeError("not a PE image", expected="MZ", got=ascii(data[:2]))
    reader = Reader(data, order="little")
    reader.take(_PE_POINTER, "DOS header")
    signature_at = reader.uint(4, "offset of the PE header")
    if signature_at > len(data):
        raise PeError("no PE header in the file", offset=_PE_POINTER, got=f"{signature_at}")
    reader.offset = signature_at
    if reader.take(4, "PE signature") != b"PE\0\0":
        raise PeError("no PE signature", offset=signature_at)
    machine, section_count = reader.uint(2, "machine"), reader.uint(2, "section count")
    reader.take(12, "symbol table")
    optional_size = reader.uint(2, "optional header size")
    reader.take(2, "characteristics")
    if section_count > MAX_SECTIONS:
        raise PeError("too many sections", offset=signature_at + 6, got=f"{section_count}")
    optional_at = reader.offset
    reader.take(optional_size, "optional header")
    optional = Reader(data, order="little", start=optional_at, end=reader.offset)
    directories = _DIRECTORY_OFFSETS.get(optional.uint(2, "optional header magic"))
    if directories is None:
        raise PeError("neither PE32 nor PE32+", offset=optional_at)
    fields = _optional_header(optional, directories)
    image = PeImage(
        data=data,
        machine=machine,
        coff_at=signature_at + 4,
        optional_at=optional_at,
        checksum_at=optional_at + _CHECKSUM,
        security_at=optional_at + directories + 8 * _SECURITY,
        section_table_at=reader.offset,
        sections=tuple(_section(reader) for _ in range(section_count)),
        **fields,
    )
    _check_layout(image)
    return replace(image, sections=tuple(_long_named(image)))


def _optional_header(optional: Reader, directories: int) -> dict[str, int]:
    """The fields that loading and hashing need, by name; the magic is read already."""
    optional.take(30, "optional header")
    fields = {
        "section_alignment": optional.uint(4, "SectionAlignment"),
        "file_alignment": optional.uint(4, "FileAlignment"),
    }
    optional.take(16, "versions")
    fields["size_of_image"] = optional.uint(4, "SizeOfImage")
    fields["size_of_headers"] = optional.uint(4, "SizeOfHeaders")
    optional.take(directories - 4 - _CHECKSUM, "optional header")
    count_at = optional.offset
    if optional.uint(4, "NumberOfRvaAndSizes") <= _SECURITY:
        raise PeError("image has no security directory entry", offset=count_at)
    optional.take(8 * _SECURITY, "data directories")
    fields["certificates_at"] = optional.uint(4, "certificate table offset")
    fields["certificates_size"] = optional.uint(4, "certificate table size")
    return fields


def _section(reader: Reader) -> Section:
    name = reader.take(8, "section name").rstrip(b"\0")
    size, address, raw_size, raw_offset = (reader.uint(4, "section header") for _ in range(4))
    reader.take(12, "section relocations")
    return Section(
        name=name.decode("latin-1"),
        virtual_size=size,
        virtual_address=address,
        raw_size=raw_size,
        raw_offset=raw_offset,
        characteristics=reader.uint(4, "section characteristics"),
    )


def _long_named(image: PeImage) -> Iterator[Section]:
    """Sections under their names: ``/N`` stands for the text at N of the COFF string table.

    GNU tools write such names into EFI programs, too. One that leads nowhere stays as it is.
    """
    symbols, count = (
        int.from_bytes(image.data[image.coff_at + at : image.coff_at + at + 4], "little")
        for at in (8, 12)
    )
    table = symbols + _SYMBOL_SIZE * count
    for section in image.sections:
        if not symbols or not re.fullmatch(r"/[0-9]{1,7}", section.name):
            yield section
            continue
        at = table + int(section.name[1:])
        name = image.data[at : at + _LONG_NAME].partition(b"\0")[0].decode("latin-1")
        yield replace(section, name=name) if name.isprintable() and name else section


def _check_layout(image: PeImage) -> None:
    """Everything the digest reads must exist, once, and the certificates must end the file.

    Two readers that disagree on what a file's bytes mean are how signed images get altered;
    so overlapping sections and bytes behind the certificates are refused.
    """
    end = len(image.data) - image.certificates_size
    header_end = image.section_table_at + SECTION_HEADER_SIZE * len(image.sections)
    if not header_end <= image.size_of_headers <= end:
        raise PeError(
            "headers do not fit", expected=f"{header_end} to {end}", got=f"{image.size_of_headers}"
        )
    if image.certificates_size and image.certificates_at != end:
        raise PeError(
            "certificate table does not end the file",
            offset=image.security_at,
            expected=f"{end}",
            got=f"{image.certificates_at}",
        )
    covered = image.size_of_headers
    for section in sorted(image.sections, key=lambda one: one.raw_offset):
        if not section.raw_size:
            continue
        if section.raw_offset < covered or section.raw_offset + section.raw_size > end:
            raise PeError(
                "section overlaps its neighbours or the file's end",
                offset=image.section_table_at,
                got=ascii(section.name),
            )
        covered = section.raw_offset + section.raw_size


def _certificate(reader: Reader) -> WinCertificate:
    start = reader.offset
    length = reader.uint(4, "certificate length")
    if length < 8:
        raise PeError("certificate is shorter than its header", offset=start, got=f"{length}")
    certificate = WinCertificate(
        revision=reader.uint(2, "certificate revision"),
        type=reader.uint(2, "certificate type"),
        content=reader.take(length - 8, "certificate"),
    )
    padding = -length % CERTIFICATE_ALIGNMENT
    reader.take(min(padding, reader.remaining), "certificate padding")
    return certificate
