r"""Firmware event logs (TCG PC Client Platform Firmware Profile 1.06, clause 10; TCG EFI 1.22).

The first event is always in the old layout. If its data starts with ``Spec ID Event03`` the rest
of the log is crypto-agile (``TCG_PCR_EVENT2``), otherwise it is a SHA-1 log of TPM 1.2 times::

    TCG_PCR_EVENT    pcrIndex u32 | eventType u32 | digest 20            | size u32 | event
    TCG_PCR_EVENT2   pcrIndex u32 | eventType u32 | count u32 | digests  | size u32 | event
                     digests = count × (TPM_ALG_ID u16 | digest, as long as the Spec ID event says)

All integers are little-endian. Firmware reserves a fixed area for the log; what follows the last
event may be 0x00 or 0xFF throughout, nothing else. Windows closes its copy of a log with an
``EV_NO_ACTION`` whose PCR index is 0xFFFFFFFF.

A parsed log is *untrusted*: event types, order between PCRs and most event data are covered by
no digest. ``measure.replay`` ties it to quoted PCRs, ``measure.grammar`` and ``measure.facts``
say what then follows from it. Digests of algorithms catena does not know are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Literal

import msgspec

from catena.errors import FormatError
from catena.formats.reader import Reader
from catena.ids import PCR_COUNT, HashAlg, hash_alg_from_tpm_id

LogFormat = Literal["tcg2", "tcg12", "ccel"]

MAX_LOG = 4 * 1024 * 1024
MAX_EVENTS = 4096
MAX_EVENT_DATA = 1024 * 1024
MAX_ALGORITHMS = 8
MAX_DIGEST = 64
FIRST_EVENT = 32
"""Bytes in front of the first event's data."""

SPEC_ID_03 = b"Spec ID Event03\0"
STARTUP_LOCALITY = b"StartupLocality\0"

_SHA1_HEADER = struct.Struct("<II20sI")
_AGILE_HEADER = struct.Struct("<III")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_CCEL_SPEC_ID_INDEX = 1


class EventType(IntEnum):
    """Event types (PFP 1.06, tables 27 and 28; 1.2 types where logs still use them)."""

    EV_PREBOOT_CERT = 0x00
    EV_POST_CODE = 0x01
    EV_NO_ACTION = 0x03
    EV_SEPARATOR = 0x04
    EV_ACTION = 0x05
    EV_EVENT_TAG = 0x06
    EV_S_CRTM_CONTENTS = 0x07
    EV_S_CRTM_VERSION = 0x08
    EV_CPU_MICROCODE = 0x09
    EV_PLATFORM_CONFIG_FLAGS = 0x0A
    EV_TABLE_OF_DEVICES = 0x0B
    EV_COMPACT_HASH = 0x0C
    EV_IPL = 0x0D
    EV_IPL_PARTITION_DATA = 0x0E
    EV_NONHOST_CODE = 0x0F
    EV_NONHOST_CONFIG = 0x10
    EV_NONHOST_INFO = 0x11
    EV_OMIT_BOOT_DEVICE_EVENTS = 0x12
    EV_POST_CODE2 = 0x13
    EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EV_EFI_VARIABLE_BOOT = 0x80000002
    EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EV_EFI_BOOT_SERVICES_DRIVER = 0x80000004
    EV_EFI_RUNTIME_SERVICES_DRIVER = 0x80000005
    EV_EFI_GPT_EVENT = 0x80000006
    EV_EFI_ACTION = 0x80000007
    EV_EFI_PLATFORM_FIRMWARE_BLOB = 0x80000008
    EV_EFI_HANDOFF_TABLES = 0x80000009
    EV_EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A
    EV_EFI_HANDOFF_TABLES2 = 0x8000000B
    EV_EFI_VARIABLE_BOOT2 = 0x8000000C
    EV_EFI_GPT_EVENT2 = 0x8000000D
    EV_EFI_HCRTM_EVENT = 0x80000010
    EV_EFI_VARIABLE_AUTHORITY = 0x800000E0
    EV_EFI_SPDM_FIRMWARE_BLOB = 0x800000E1
    EV_EFI_SPDM_FIRMWARE_CONFIG = 0x800000E2


NO_ACTION = int(EventType.EV_NO_ACTION)
"""Plain, because looking up a member of an enum costs as much as hashing an event."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One log event; ``offset`` is where it starts, ``type`` may be unknown to ``EventType``.

    ``pcr`` is below 24 unless the event is an ``EV_NO_ACTION``, which extends nothing. A struct,
    because a log has hundreds and a frozen dataclass takes four times as long to make.
    """

    index: int
    pcr: int
    type: int
    digests: Mapping[HashAlg, bytes]
    data: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class EventLog:
    """A parsed log, the Spec ID event included as event 0.

    ``banks`` are the hash algorithms the Spec ID event declares; an event
    may lack one of them. ``format`` is ``ccel`` for logs of confidential VMs, whose ``pcr`` is a
    measurement-register index and not a PCR.
    """

    format: LogFormat
    banks: tuple[HashAlg, ...]
    events: tuple[Event, ...]


@lru_cache(maxsize=256)
def event_type_name(event_type: int) -> str:
    """The TCG name of an event type, ``0x80000123`` for one that has none."""
    try:
        return EventType(event_type).name
    except ValueError:
        return f"{event_type:#010x}"


def parse(data: bytes) -> EventLog:
    """Parse a whole log. Raises ``FormatError`` with the offset of the event at fault."""
    if len(data) > MAX_LOG:
        raise _fault("event log length", 0, f"at most {MAX_LOG}", len(data))
    first, offset = _sha1_event(data, 0, 0)
    if first.type != EventType.EV_NO_ACTION or not first.data.startswith(SPEC_ID_03):
        return EventLog("tcg12", (HashAlg.SHA1,), _sha1_events(data))
    sizes, offset = _spec_id_algorithms(data, offset - len(first.data), offset)
    banks = tuple(alg for alg in map(hash_alg_from_tpm_id, sizes) if alg is not None)
    log_format: LogFormat = "ccel" if first.pcr == _CCEL_SPEC_ID_INDEX else "tcg2"
    return EventLog(log_format, banks, _agile_events(data, first, offset, sizes))


def _spec_id_algorithms(data: bytes, start: int, end: int) -> tuple[dict[int, int], int]:
    """TPM_ALG_ID to digest size, and where the next event starts.

    ``TCG_EfiSpecIDEvent`` is PFP 1.06, clause 10.4.5.1. Some writers leave the vendor info, all
    of it, out of the event's declared size: then it follows behind the event.
    """
    reader = Reader(data, order="little", start=start + len(SPEC_ID_03), end=end)
    reader.take(8, "Spec ID platform class and version")
    count = reader.uint(4, "Spec ID algorithm count")
    if not 1 <= count <= MAX_ALGORITHMS:
        raise _fault("Spec ID algorithm count", reader.offset - 4, f"1 to {MAX_ALGORITHMS}", count)
    sizes: dict[int, int] = {}
    for _ in range(count):
        tpm_id, size = _spec_id_algorithm(reader)
        if tpm_id in sizes:
            raise _fault("Spec ID algorithm", reader.offset - 4, "each once", tpm_id)
        sizes[tpm_id] = size
    vendor_size = reader.uint(1, "Spec ID vendor info length")
    if not reader.remaining:
        _need(data, end, vendor_size, "Spec ID vendor info")
        return sizes, end + vendor_size
    reader.take(vendor_size, "Spec ID vendor info")
    reader.done("Spec ID event")
    return sizes, end


def _spec_id_algorithm(reader: Reader) -> tuple[int, int]:
    start = reader.offset
    tpm_id, size = reader.uint(2, "algorithm id"), reader.uint(2, "digest size")
    known = hash_alg_from_tpm_id(tpm_id)
    if known is not None and size != known.size:
        raise _fault(f"{known} digest size", start + 2, f"{known.size}", size)
    if not 1 <= size <= MAX_DIGEST:
        raise _fault("digest size", start + 2, f"1 to {MAX_DIGEST}", size)
    return tpm_id, size


def _sha1_events(data: bytes) -> tuple[Event, ...]:
    events: list[Event] = []
    offset = 0
    padding = _padding(data)
    while offset < padding:
        event, offset = _sha1_event(data, offset, len(events))
        events.append(event)
        _check_bounds(event.type, event.pcr, event.offset, len(events))
    return tuple(events)


def _sha1_event(data: bytes, offset: int, index: int) -> tuple[Event, int]:
    """One ``TCG_PCR_EVENT`` and the offset behind it."""
    _need(data, offset, _SHA1_HEADER.size, "event header")
    pcr, event_type, digest, size = _SHA1_HEADER.unpack_from(data, offset)
    start = offset + _SHA1_HEADER.size
    _check_size(data, start, size)
    content = data[start : start + size]
    return Event(index, pcr, event_type, {HashAlg.SHA1: digest}, content, offset), start + size


def _agile_events(
    data: bytes, first: Event, offset: int, sizes: Mapping[int, int]
) -> tuple[Event, ...]:
    """``first`` and every ``TCG_PCR_EVENT2`` from ``offset`` to the padding or the end.

    Nearly every event lists the declared algorithms in their order: such a head has a fixed
    layout and is read in one step. Any other head is read piece by piece.
    """
    algorithms = {
        tpm_id: (hash_alg_from_tpm_id(tpm_id), 2 + size) for tpm_id, size in sizes.items()
    }
    usual = _UsualHead(sizes)
    events = [first]
    total, padding = len(data), _padding(data)
    while offset < padding:
        head = usual.read(data, offset) or _unusual_head(data, offset, algorithms)
        pcr, event_type, digests, start, size = head
        index, end = len(events), start + size
        if pcr >= PCR_COUNT or index >= MAX_EVENTS:
            _check_bounds(event_type, pcr, offset, index + 1)
        if size > MAX_EVENT_DATA or end > total:
            _check_size(data, start, size)
        events.append(Event(index, pcr, event_type, digests, data[start:end], offset))
        offset = end
    return tuple(events)


_Head = tuple[int, int, dict[HashAlg, bytes], int, int]
"""PCR, type, digests, where the event's data starts, its declared size."""


class _UsualHead:
    """The head of an event whose digests are the declared ones, in declared order."""

    def __init__(self, sizes: Mapping[int, int]) -> None:
        digests = "".join(f"H{size}s" for size in sizes.values())
        self._layout = struct.Struct(f"<III{digests}I")
        self._ids = tuple(sizes)
        self._banks = tuple(hash_alg_from_tpm_id(tpm_id) for tpm_id in sizes)
        self._foreign = None in self._banks

    def read(self, data: bytes, offset: int) -> _Head | None:
        """The head at ``offset``, or None if it is another one or runs past the end."""
        start = offset + self._layout.size
        if start > len(data):
            return None
        fields = self._layout.unpack_from(data, offset)
        if fields[2] != len(self._ids) or fields[3:-1:2] != self._ids:
            return None
        digests = dict(zip(self._banks, fields[4:-1:2]))  # noqa: B905 - as many; asking costs a third
        if self._foreign:
            digests.pop(None, None)
        return fields[0], fields[1], digests, start, fields[-1]  # type: ignore[return-value] # None is gone


def _unusual_head(
    data: bytes, offset: int, algorithms: Mapping[int, tuple[HashAlg | None, int]]
) -> _Head:
    _need(data, offset, _AGILE_HEADER.size, "event header")
    pcr, event_type, count = _AGILE_HEADER.unpack_from(data, offset)
    _check_bounds(event_type, pcr, offset, 0)
    digests, at = _digests(data, offset + _AGILE_HEADER.size, count, algorithms)
    _need(data, at, 4, "event size")
    return pcr, event_type, digests, at + 4, _U32.unpack_from(data, at)[0]


def _digests(
    data: bytes, at: int, count: int, algorithms: Mapping[int, tuple[HashAlg | None, int]]
) -> tuple[dict[HashAlg, bytes], int]:
    """``TPML_DIGEST_VALUES`` and the offset behind it.

    Real firmware lists the algorithms in any order and sometimes fewer than it declared; an
    algorithm that it never declared, or one twice, has no defined meaning.
    """
    if not 1 <= count <= len(algorithms):
        raise _fault("digest count", at - 4, f"1 to {len(algorithms)}", count)
    digests: dict[HashAlg, bytes] = {}
    seen: set[int] = set()
    for _ in range(count):
        _need(data, at, 2, "digest algorithm")
        tpm_id: int = _U16.unpack_from(data, at)[0]
        if tpm_id in seen or tpm_id not in algorithms:
            raise _fault("digest algorithm", at, "each declared one once", tpm_id)
        seen.add(tpm_id)
        bank, size = algorithms[tpm_id]
        _need(data, at, size, "digest")
        if bank is not None:
            digests[bank] = data[at + 2 : at + size]
        at += size
    return digests, at


def _padding(data: bytes) -> int:
    """Where only 0x00 or only 0xFF is left; found once, for what ends in zeros may be an event."""
    return min(len(data.rstrip(b"\0")), len(data.rstrip(b"\xff")))


def _need(data: bytes, offset: int, size: int, what: str) -> None:
    if offset + size > len(data):
        raise FormatError(
            f"{what} runs past the end",
            offset=offset,
            expected=f"{size} bytes",
            got=f"{len(data) - offset}",
        )


def _check_size(data: bytes, start: int, size: int) -> None:
    if size > MAX_EVENT_DATA:
        raise _fault("event size", start - 4, f"at most {MAX_EVENT_DATA}", size)
    _need(data, start, size, "event data")


def _check_bounds(event_type: int, pcr: int, offset: int, count: int) -> None:
    if pcr >= PCR_COUNT and event_type != NO_ACTION:
        raise _fault("PCR index", offset, f"below {PCR_COUNT}", pcr)
    if count > MAX_EVENTS:
        raise _fault("number of events", offset, f"at most {MAX_EVENTS}", count)


def _fault(what: str, offset: int, expected: str, got: int) -> FormatError:
    return FormatError(f"wrong {what}", offset=offset, expected=expected, got=f"{got}")
