"""Variable stores of edk2 firmware, as in OVMF's flash (edk2, MdeModulePkg, little-endian).

::

    firmware volume  zero 16 | file system GUID 16 | length u64 | "_FVH" | attributes u32
                     | header length u16 | checksum u16 | … | block map
    store            signature GUID 16 | size u32 | format u8 | state u8 | reserved 6
    variable         0x55AA u16 | state u8 | reserved u8 | attributes u32 | monotonic count u64
                     | time 16 | public key index u32 | name size u32 | data size u32 | GUID 16
                     | name UTF-16 with NUL | data | padding to 4 bytes

Only stores of authenticated variables (``gEfiAuthenticatedVariableGuid``) are read. A variable
counts in the state *added*, and in *added, about to be deleted* if no other has its name: that
is what firmware makes of a store whose update was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from catena.errors import FormatError
from catena.formats.reader import Reader

MAX_STORE = 64 * 1024 * 1024
MAX_VARIABLES = 4096
MAX_NAME = 2048
MAX_DATA = 1024 * 1024

NV_DATA = UUID("fff12b8d-7696-4c8b-a985-2747075b4f50")
AUTHENTICATED = UUID("aaf32c78-947b-439a-a180-2e144ec37792")

_VOLUME_SIGNATURE = b"_FVH"
_FORMATTED, _HEALTHY = 0x5A, 0xFE
_START = 0x55AA
_ADDED, _DELETING = 0x3F, 0x3E
_ERASED = b"\xff\xff"


class VarstoreError(FormatError):
    """Bytes that are no store of authenticated variables."""

    code = "malformed-varstore"
    remedy = "Give the machine's variable store, such as OVMF_VARS_4M.fd, or a folder of efivars."


@dataclass(frozen=True, slots=True)
class StoredVariable:
    """One variable; ``attributes`` as in UEFI 2.10, 8.2.1."""

    guid: UUID
    name: str
    attributes: int
    data: bytes


def parse(data: bytes) -> tuple[StoredVariable, ...]:
    """Every variable in force, in the order of the store. Raises ``FormatError``."""
    if len(data) > MAX_STORE:
        raise VarstoreError("variable store is too large", got=f"{len(data)}")
    reader = Reader(data, order="little")
    reader.take(16, "firmware volume")
    guid = UUID(bytes_le=reader.take(16, "file system GUID"))
    length = reader.uint(8, "firmware volume length")
    if reader.take(4, "firmware volume signature") != _VOLUME_SIGNATURE or guid != NV_DATA:
        raise VarstoreError("no firmware volume of variables", expected="_FVH", offset=40)
    reader.take(4, "firmware volume attributes")
    header = reader.uint(2, "firmware volume header length")
    if not 56 <= header <= length <= len(data):
        raise VarstoreError("firmware volume does not fit the file", offset=48, got=f"{header}")
    return _store(Reader(data, order="little", start=header, end=length))


def _store(reader: Reader) -> tuple[StoredVariable, ...]:
    start = reader.offset
    guid = UUID(bytes_le=reader.take(16, "store signature"))
    size = reader.uint(4, "store size")
    state = (reader.uint(1, "store format"), reader.uint(1, "store state"))
    reader.take(6, "store header")
    if guid != AUTHENTICATED or state != (_FORMATTED, _HEALTHY):
        raise VarstoreError("no store of authenticated variables", offset=start, got=str(guid))
    if size < reader.offset - start or size - (reader.offset - start) > reader.remaining:
        raise VarstoreError("variable store does not fit its volume", offset=start + 16)
    found = list(_records(reader, start + size))
    names = {(one.guid, one.name) for state, one in found if state == _ADDED}
    return tuple(
        one
        for state, one in found
        if state == _ADDED or (state == _DELETING and (one.guid, one.name) not in names)
    )


def _records(reader: Reader, end: int) -> list[tuple[int, StoredVariable]]:
    records: list[tuple[int, StoredVariable]] = []
    while end - reader.offset >= 60:
        at = reader.offset
        mark = reader.take(2, "variable")
        if mark == _ERASED:
            break
        if int.from_bytes(mark, "little") != _START or len(records) == MAX_VARIABLES:
            raise VarstoreError("no variable where one should start", offset=at, got=mark.hex())
        records.append(_record(reader))
        reader.take(min(-reader.offset % 4, end - reader.offset), "padding")
    return records


def _record(reader: Reader) -> tuple[int, StoredVariable]:
    state = reader.uint(1, "variable state")
    reader.take(1, "reserved")
    attributes = reader.uint(4, "attributes")
    reader.take(8 + 16 + 4, "authentication")
    at = reader.offset
    name_size, data_size = reader.uint(4, "name size"), reader.uint(4, "data size")
    if name_size > MAX_NAME or name_size % 2 or data_size > MAX_DATA:
        raise VarstoreError("variable is too large", offset=at, got=f"{name_size}, {data_size}")
    guid = UUID(bytes_le=reader.take(16, "variable GUID"))
    name = reader.take(name_size, "variable name").decode("utf-16-le", "replace").rstrip("\0")
    return state, StoredVariable(guid, name, attributes, reader.take(data_size, "variable data"))
