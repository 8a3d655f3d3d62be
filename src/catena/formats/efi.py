r"""UEFI structures that firmware measures (UEFI 2.10; TCG PC Client PFP 1.06). Little-endian.

::

    UEFI_VARIABLE_DATA    GUID 16 | name length u64 (characters) | data length u64
    (PFP 10.2.6)          | name UTF-16 without NUL | data
    EFI_SIGNATURE_LIST    type GUID 16 | list size u32 | header size u32 | signature size u32
    (UEFI 32.4.1)         | header | signatures, each owner GUID 16 | data
    EFI_IMAGE_LOAD_EVENT  address u64 | length u64 | link-time address u64 | path length u64
    (PFP 10.2.3)          | device path
    device path node      type u8 | subtype u8 | length u16 | data       (UEFI 10.3)

GUIDs are ``uuid.UUID``; on the wire they are in the mixed-endian form of ``UUID.bytes_le``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from catena.errors import FormatError
from catena.formats.reader import Reader

EFI_GLOBAL_VARIABLE = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY_DATABASE = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
SHIM_LOCK = UUID("605dab50-e046-4300-abb6-3dd810dd8b23")
EFI_CERT_X509 = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
EFI_CERT_SHA256 = UUID("c1c41626-504c-4092-aca9-41f936934328")

MAX_NAME = 512
MAX_DATA = 1024 * 1024
MAX_LISTS = 1024
MAX_SIGNATURES = 16384
MAX_DEVICE_PATH = 64 * 1024
MAX_NODES = 64
MAX_BOOT_OPTIONS = 1024

_GUID_SIZE = 16
_LIST_HEADER = 28
_VARIABLE_HEAD = struct.Struct("<16sQQ")
_LIST_SIZES = struct.Struct("<III")
_END_NODE = 0x7F
_PCI_ROOT_HIDS = (0x0A0341D0, 0x0A0841D0)


@dataclass(frozen=True, slots=True)
class VariableData:
    """UEFI_VARIABLE_DATA: the form in which PCR 1 and PCR 7 measurements log a variable."""

    guid: UUID
    name: str
    data: bytes

    def encode(self) -> bytes:
        """The bytes that firmware hashes into PCR 7; parse_variable() gives it back."""
        name = self.name.encode("utf-16-le", "surrogatepass")
        lengths = (len(name) // 2).to_bytes(8, "little") + len(self.data).to_bytes(8, "little")
        return self.guid.bytes_le + lengths + name + self.data


@dataclass(frozen=True, slots=True)
class SignatureEntry:
    """EFI_SIGNATURE_DATA: who put it there, and a certificate or a hash."""

    owner: UUID
    data: bytes

    def encode(self) -> bytes:
        """The bytes in a list, and in a PCR 7 authority event."""
        return self.owner.bytes_le + self.data


@dataclass(frozen=True, slots=True)
class SignatureList:
    """EFI_SIGNATURE_LIST: signatures of one type and one size; ``header`` is empty in practice."""

    type_guid: UUID
    signatures: tuple[SignatureEntry, ...]
    header: bytes = b""

    def encode(self) -> bytes:
        """The list's bytes. Its signatures must all have the same size."""
        sizes = {_GUID_SIZE + len(entry.data) for entry in self.signatures}
        if len(sizes) != 1:
            raise FormatError("signatures of one list differ in size", got=f"{sorted(sizes)}")
        size = sizes.pop()
        total = _LIST_HEADER + len(self.header) + size * len(self.signatures)
        head = b"".join(n.to_bytes(4, "little") for n in (total, len(self.header), size))
        body = b"".join(entry.encode() for entry in self.signatures)
        return self.type_guid.bytes_le + head + self.header + body


@dataclass(frozen=True, slots=True)
class ImageLoad:
    """EFI_IMAGE_LOAD_EVENT. Never covered by the event's digest, which is the image's own."""

    address: int
    length: int
    link_time_address: int
    device_path: bytes


def parse_variable(data: bytes) -> VariableData:
    """Read a UEFI_VARIABLE_DATA. Raises ``FormatError``."""
    if len(data) < _VARIABLE_HEAD.size:
        raise FormatError("variable runs past the end", offset=len(data), expected="32 bytes")
    guid, name_length, data_length = _VARIABLE_HEAD.unpack_from(data)
    if name_length > MAX_NAME:
        raise FormatError(
            "variable name is too long", offset=16, expected=f"{MAX_NAME}", got=f"{name_length}"
        )
    start = _VARIABLE_HEAD.size + 2 * name_length
    if start + data_length != len(data):
        excess = len(data) > start + data_length
        what = "UEFI_VARIABLE_DATA has trailing bytes" if excess else "variable runs past the end"
        raise FormatError(
            what,
            offset=min(start, len(data)),
            expected=f"{start + data_length} bytes",
            got=f"{len(data)}",
        )
    name = data[_VARIABLE_HEAD.size : start].decode("utf-16-le", "surrogatepass")
    return VariableData(_known_guid(guid), name, data[start:])


@lru_cache(maxsize=256)
def _known_guid(wire: bytes) -> UUID:
    """The same few GUIDs name nearly every variable, and making one takes longer than the rest."""
    return UUID(bytes_le=wire)


def parse_signature_entry(data: bytes) -> SignatureEntry:
    """Read one EFI_SIGNATURE_DATA that fills ``data``. Raises ``FormatError``."""
    reader = Reader(data, order="little")
    owner = _guid(reader)
    return SignatureEntry(owner, reader.take(reader.remaining, "signature data"))


def parse_signature_lists(data: bytes) -> tuple[SignatureList, ...]:
    """Read consecutive EFI_SIGNATURE_LISTs, as in PK, KEK, db and dbx. Raises ``FormatError``."""
    reader = Reader(data, order="little")
    lists: list[SignatureList] = []
    budget = MAX_SIGNATURES
    while reader.remaining:
        if len(lists) == MAX_LISTS:
            raise FormatError("too many signature lists", offset=reader.offset)
        lists.append(_signature_list(reader, budget))
        budget -= len(lists[-1].signatures)
    return tuple(lists)


def holds_signature_lists(data: bytes) -> bool:
    """True if ``data`` is nothing but signature lists; looks at their headers only."""
    at = 0
    while at < len(data):
        head = data[at + _GUID_SIZE : at + _LIST_HEADER]
        if len(head) < _LIST_HEADER - _GUID_SIZE:
            return False
        total, header_size, size = _LIST_SIZES.unpack(head)
        body = total - _LIST_HEADER - header_size
        if size <= _GUID_SIZE or body < 0 or body % size or at + total > len(data):
            return False
        at += total
    return True


def encode_signature_lists(lists: Iterable[SignatureList]) -> bytes:
    """The content of a key variable."""
    return b"".join(entry.encode() for entry in lists)


def _signature_list(reader: Reader, budget: int) -> SignatureList:
    start = reader.offset
    guid = _guid(reader)
    total, header_size, size = (reader.uint(4, "signature list sizes") for _ in range(3))
    body = total - _LIST_HEADER - header_size
    if size <= _GUID_SIZE or body < 0 or body % size:
        raise FormatError("signature list sizes do not add up", offset=start + _GUID_SIZE)
    if body // size > budget:
        raise FormatError("too many signatures", offset=start, expected=f"{MAX_SIGNATURES}")
    header = reader.take(header_size, "signature list header")
    content = reader.take(body, "signatures")
    return SignatureList(guid, tuple(_signatures(content, size)), header)


def _signatures(content: bytes, size: int) -> Iterator[SignatureEntry]:
    """The entries of one list. A dbx has hundreds, nearly all of the same owner."""
    owners: dict[bytes, UUID] = {}
    for at in range(0, len(content), size):
        wire = content[at : at + _GUID_SIZE]
        owner = owners.get(wire) or owners.setdefault(wire, UUID(bytes_le=wire))
        yield SignatureEntry(owner, content[at + _GUID_SIZE : at + size])


@dataclass(frozen=True, slots=True)
class LoadOption:
    """EFI_LOAD_OPTION, the content of a Boot#### variable (UEFI 2.10, 3.1.3)."""

    attributes: int
    description: str
    device_path: bytes
    optional_data: bytes


def parse_load_option(data: bytes) -> LoadOption:
    """Read an EFI_LOAD_OPTION. Raises ``FormatError``."""
    reader = Reader(data, order="little")
    attributes, path_size = reader.uint(4, "attributes"), reader.uint(2, "device path length")
    units: list[bytes] = []
    while (unit := reader.take(2, "description")) != b"\0\0":
        if len(units) == MAX_NAME:
            raise FormatError("description is too long", offset=reader.offset)
        units.append(unit)
    path = reader.take(path_size, "device paths")
    description = b"".join(units).decode("utf-16-le", "replace")
    return LoadOption(attributes, description, path, reader.take(reader.remaining, "data"))


def boot_variable_text(variable: VariableData) -> str:
    """A boot variable in words: an order as numbers, an option as description and path.

    May hold any character: escape it before printing.
    """
    data = variable.data
    is_order = variable.name in {"BootOrder", "BootNext", "BootCurrent"}
    if is_order and len(data) % 2 == 0 and len(data) <= 2 * MAX_BOOT_OPTIONS:
        return ", ".join(data[at : at + 2][::-1].hex().upper() for at in range(0, len(data), 2))
    try:
        option = parse_load_option(data)
        return f"{option.description} ({device_path_text(option.device_path)})"
    except FormatError:
        return data[:16].hex()


def parse_image_load(data: bytes) -> ImageLoad:
    """Read an EFI_IMAGE_LOAD_EVENT. Raises ``FormatError``."""
    reader = Reader(data, order="little")
    address, length, link_time = (reader.uint(8, "image location") for _ in range(3))
    path = reader.sized(8, MAX_DEVICE_PATH, "device path")
    reader.done("EFI_IMAGE_LOAD_EVENT")
    return ImageLoad(address, length, link_time, path)


def device_path_text(path: bytes) -> str:
    r"""A device path in the notation of UEFI 10.6, such as ``PciRoot(0x0)/Pci(0x2,0x0)/…``.

    Nodes that catena does not know become ``Path(type,subtype)``. Raises ``FormatError``. The
    result may hold any character a file name can: escape it before printing.
    """
    reader = Reader(path, order="little")
    nodes: list[str] = []
    while reader.remaining:
        start = reader.offset
        kind, subtype = reader.uint(1, "node type"), reader.uint(1, "node subtype")
        length = reader.uint(2, "node length")
        body = reader.take(length - 4, "device path node")
        if kind == _END_NODE:
            break
        if len(nodes) == MAX_NODES:
            raise FormatError("too many device path nodes", offset=start)
        nodes.append(_node_text(kind, subtype, body))
    return "/".join(nodes)


def _node_text(kind: int, subtype: int, body: bytes) -> str:
    describe = _NODES.get((kind, subtype))
    try:
        return describe(Reader(body, order="little")) if describe else f"Path({kind},{subtype})"
    except FormatError:
        return f"Path({kind},{subtype})"


def _pci(body: Reader) -> str:
    function, device = body.uint(1, "function"), body.uint(1, "device")
    return f"Pci({device:#x},{function:#x})"


def _memory(body: Reader) -> str:
    kind, first, last = body.uint(4, "type"), body.uint(8, "start"), body.uint(8, "end")
    return f"MemoryMapped({kind:#x},{first:#x},{last:#x})"


def _acpi(body: Reader) -> str:
    hid, uid = body.uint(4, "hid"), body.uint(4, "uid")
    return f"PciRoot({uid:#x})" if hid in _PCI_ROOT_HIDS else f"Acpi({hid:#010x},{uid:#x})"


def _scsi(body: Reader) -> str:
    target, unit = body.uint(2, "target"), body.uint(2, "lun")
    return f"Scsi({target:#x},{unit:#x})"


def _usb(body: Reader) -> str:
    port, interface = body.uint(1, "port"), body.uint(1, "interface")
    return f"USB({port:#x},{interface:#x})"


def _sata(body: Reader) -> str:
    port, multiplier, unit = (body.uint(2, "SATA address") for _ in range(3))
    return f"Sata({port:#x},{multiplier:#x},{unit:#x})"


def _nvme(body: Reader) -> str:
    namespace, eui = body.uint(4, "namespace"), body.uint(8, "EUI-64")
    return f"NVMe({namespace:#x},{eui:016x})"


def _mac(body: Reader) -> str:
    return f"MAC({body.take(6, 'MAC address').hex()})"


def _uri(body: Reader) -> str:
    return f"Uri({body.take(body.remaining, 'URI').decode('ascii', 'backslashreplace')})"


def _hard_drive(body: Reader) -> str:
    number = body.uint(4, "partition number")
    body.take(16, "partition location")
    return f"HD({number},GPT,{_guid(body)})"


def _vendor(body: Reader) -> str:
    return f"Ven({_guid(body)})"


def _file(body: Reader) -> str:
    name = body.take(body.remaining, "file path").decode("utf-16-le", "backslashreplace")
    return name.rstrip("\0")


def _volume(body: Reader) -> str:
    return f"Fv({_guid(body)})"


def _volume_file(body: Reader) -> str:
    return f"FvFile({_guid(body)})"


def _guid(reader: Reader) -> UUID:
    return _known_guid(reader.take(_GUID_SIZE, "GUID"))


_NODES: dict[tuple[int, int], Callable[[Reader], str]] = {
    (1, 1): _pci,
    (1, 3): _memory,
    (1, 4): _vendor,
    (2, 1): _acpi,
    (3, 2): _scsi,
    (3, 5): _usb,
    (3, 10): _vendor,
    (3, 11): _mac,
    (3, 12): lambda _: "IPv4",
    (3, 13): lambda _: "IPv6",
    (3, 18): _sata,
    (3, 23): _nvme,
    (3, 24): _uri,
    (4, 1): _hard_drive,
    (4, 3): _vendor,
    (4, 4): _file,
    (4, 6): _volume_file,
    (4, 7): _volume,
}
