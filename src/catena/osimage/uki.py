"""Unified kernel images: PE sections added to systemd's EFI stub (UAPI.5, Unified Kernel Image).

The stub finds its kernel, initrd and command line by section name in its own loaded image.
New sections follow the stub's: file offsets at FileAlignment, addresses at 4 KiB pages. The
stub's symbol table is dropped. Equal parts give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catena.errors import FormatError
from catena.formats import pe
from catena.formats.pe import PeImage
from catena.formats.references import Digests
from catena.ids import HashAlg

_PAGE = 4096
_DATA_READ = 0x40000040
"""IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ."""
_OWN_SECTIONS = frozenset({".osrel", ".cmdline", ".uname", ".initrd", ".linux"})
_KERNEL_VERSION_AT = 0x20E
_KERNEL_MAGIC = (0x202, b"HdrS")


class UnusableStub(FormatError):
    """A file that is no EFI stub to which sections can be added."""

    code = "unusable-stub"
    remedy = "Give systemd's stub, on Debian /usr/lib/systemd/boot/efi/linuxx64.efi.stub."


class UnusableKernel(FormatError):
    """A file that is no x86 Linux kernel image."""

    code = "unusable-kernel"
    remedy = "Give the kernel's vmlinuz."


@dataclass(frozen=True, slots=True)
class Part:
    """One section to add; ``name`` has at most eight characters."""

    name: str
    content: bytes


def assemble(stub: bytes, parts: Sequence[Part]) -> bytes:
    """The stub with ``parts`` as sections, unsigned. Raises ``FormatError``."""
    image = pe.parse(stub)
    _check_stub(image, parts)
    data = bytearray(stub[: max(one.raw_offset + one.raw_size for one in image.sections)])
    address = max(one.virtual_address + one.virtual_size for one in image.sections)
    headers = b""
    for part in parts:
        address = _aligned(address, _PAGE)
        data += bytes(-len(data) % image.file_alignment)
        stored = part.content + bytes(-len(part.content) % image.file_alignment)
        headers += _section_header(part, address, len(stored), len(data))
        data += stored
        address += len(part.content)
    end = image.section_table_at + pe.SECTION_HEADER_SIZE * len(image.sections)
    data[end : end + len(headers)] = headers
    _patch_headers(data, image, len(parts), _aligned(address, _PAGE))
    return bytes(data)


def section_digests(image: PeImage, algorithms: Sequence[HashAlg]) -> dict[str, Digests]:
    """Digests of every section's loaded content, by section name."""
    return {
        section.name: {
            algorithm.value: algorithm.digest(image.content(section)).hex()
            for algorithm in algorithms
        }
        for section in image.sections
    }


def kernel_release(kernel: bytes) -> str:
    """The version that a bzImage names itself (Linux, arch/x86/boot): what ``uname -r`` prints.

    Raises ``UnusableKernel``.
    """
    at, magic = _KERNEL_MAGIC
    if kernel[at : at + 4] != magic:
        raise UnusableKernel("not a Linux kernel image", offset=at, expected="HdrS")
    start = int.from_bytes(kernel[_KERNEL_VERSION_AT : _KERNEL_VERSION_AT + 2], "little") + 0x200
    text = kernel[start : start + 128].partition(b"\0")[0].decode("ascii", errors="replace")
    if not text.isprintable() or not text.strip():
        raise UnusableKernel("kernel image without a version", offset=start)
    return text.split()[0]


def _check_stub(image: PeImage, parts: Sequence[Part]) -> None:
    if image.certificates_size:
        raise UnusableStub("stub is signed already; give the unsigned one")
    if not image.sections or image.file_alignment == 0:
        raise UnusableStub("stub has no sections")
    if taken := _OWN_SECTIONS & {section.name for section in image.sections}:
        raise UnusableStub("stub is an assembled image already", got=", ".join(sorted(taken)))
    end = image.section_table_at + pe.SECTION_HEADER_SIZE * (len(image.sections) + len(parts))
    first = min((one.raw_offset for one in image.sections if one.raw_size), default=0)
    if end > min(image.size_of_headers, first):
        raise UnusableStub("stub has no room for more section headers", got=f"{end}")


def _section_header(part: Part, address: int, raw_size: int, raw_offset: int) -> bytes:
    fields = (len(part.content), address, raw_size, raw_offset, 0, 0, 0, _DATA_READ)
    return part.name.encode("ascii").ljust(8, b"\0") + b"".join(
        field.to_bytes(4, "little") for field in fields
    )


def _patch_headers(data: bytearray, image: PeImage, added: int, size_of_image: int) -> None:
    def put(offset: int, value: int, size: int = 4) -> None:
        data[offset : offset + size] = value.to_bytes(size, "little")

    put(image.coff_at + 2, len(image.sections) + added, size=2)
    put(image.coff_at + 8, 0)  # PointerToSymbolTable
    put(image.coff_at + 12, 0)  # NumberOfSymbols
    put(image.optional_at + 56, size_of_image)
    put(image.checksum_at, 0)  # firmware does not check it, and it is not signed


def _aligned(value: int, to: int) -> int:
    return value + -value % to
