"""Any log that catena reads, recognised by its bytes, and what it replays to.

=========  ==========================================================  ==================
format     what it is                                                  parsed by
=========  ==========================================================  ==================
``tcg2``   crypto-agile firmware log                                   ``formats.tcglog``
``tcg12``  SHA-1 firmware log of TPM 1.2 times                         ``formats.tcglog``
``ccel``   log of a confidential VM: indices are registers, not PCRs   ``formats.tcglog``
``ima``    Linux IMA, binary or text                                   ``formats.ima``
``cel``    canonical event log, TLV or systemd's JSON sequence         ``formats.cel``
=========  ==========================================================  ==================

A replay says what PCRs would hold if the log were the whole truth. IMA's and systemd's logs go
on where firmware's ended: replayed alone, from zero, they explain PCRs that firmware left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from catena.errors import FormatError
from catena.formats import cel, ima, ima_ascii, tcglog
from catena.formats.cel import CelRecord
from catena.formats.ima import ImaEntry
from catena.formats.tcglog import NO_ACTION, EventLog
from catena.ids import PCR_COUNT, HashAlg
from catena.measure.binding import is_bound
from catena.measure.replay import replay, replay_ima, told_locality

Format = Literal["tcg2", "tcg12", "ccel", "ima", "cel"]

IMA_BANKS = (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512)
"""IMA's log names no banks: the kernel extends whatever banks the TPM has."""

_IMA_TEXT = re.compile(rb" ?\d{1,2} [0-9a-f]{40} [!-~]{1,64} ")
_IMA_TEMPLATE = re.compile(rb"ima(-[a-z0-9]+)?|[a-z0-9-]+(\|[a-z0-9-]+)+")
_IMA_NAME_AT = 28
_CEL_FIRST_RECORD = (b"\0\0\0\0\x08" + bytes(8), b"\0\0\0\0\x04" + bytes(4))


class NotALog(FormatError):
    """Bytes that are no log of any known kind."""

    code = "not-a-log"
    remedy = (
        "Give a firmware log (binary_bios_measurements), an IMA log "
        "(binary_ or ascii_runtime_measurements) or systemd's tpm2-measure.log."
    )


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a log replays to: PCRs (registers of a ``ccel``) that something extended, by bank.

    ``startup_locality`` is what an event of that name tells; an H-CRTM event implies 4 without
    one. ``events`` counts what belongs to a PCR, ``EV_NO_ACTION`` included. ``opaque_events`` are the
    extending ones whose data is not covered by their digest.
    """

    format: Format
    banks: tuple[HashAlg, ...]
    startup_locality: int | None
    events: int
    pcrs: dict[HashAlg, dict[int, bytes]]
    opaque_events: int


AnyLog = EventLog | tuple[ImaEntry, ...] | tuple[CelRecord, ...]


def parse(data: bytes) -> tuple[Format, AnyLog]:
    """Recognise and parse a log. Raises ``FormatError``, ``NotALog`` if it is none at all."""
    if not data:
        raise NotALog("the log is empty")
    if data.startswith(cel.RECORD_SEPARATOR):
        return "cel", cel.parse_json(data)
    if data.startswith(_CEL_FIRST_RECORD):
        return "cel", cel.parse_tlv(data)
    if _IMA_TEXT.match(data):
        return "ima", ima_ascii.parse(data)
    if _is_binary_ima(data):
        return "ima", ima.parse(data)
    log = _firmware(data)
    return log.format, log


def replay_all(data: bytes) -> Replayed:
    """Parse a log and replay it in all of its banks. Raises ``FormatError``."""
    kind, log = parse(data)
    if isinstance(log, EventLog):
        return _replay_firmware(log)
    if kind == "cel":
        return _replay_cel([one for one in log if isinstance(one, CelRecord)])
    return _replay_ima([one for one in log if isinstance(one, ImaEntry)])


def _is_binary_ima(data: bytes) -> bool:
    """True if where IMA has the name of a template there is one, behind a PCR."""
    size = int.from_bytes(data[_IMA_NAME_AT - 4 : _IMA_NAME_AT], "little")
    name = data[_IMA_NAME_AT : _IMA_NAME_AT + min(size, ima.MAX_TEMPLATE_NAME)]
    pcr = int.from_bytes(data[:4], "little")
    return pcr < PCR_COUNT and len(name) == size and bool(_IMA_TEMPLATE.fullmatch(name))


def _firmware(data: bytes) -> EventLog:
    """A firmware log; bytes whose very first event cannot be one are no log at all."""
    try:
        return tcglog.parse(data)
    except FormatError as error:
        if error.offset < tcglog.FIRST_EVENT:
            raise NotALog(
                f"these bytes are no event log: {error.message}", offset=error.offset
            ) from error
        raise


def _replay_firmware(log: EventLog) -> Replayed:
    played = {bank: replay(log, bank) for bank in log.banks}
    best = HashAlg.SHA256 if HashAlg.SHA256 in log.banks else next(iter(log.banks), None)
    return Replayed(
        format=log.format,
        banks=log.banks,
        startup_locality=told_locality(log),
        events=sum(event.pcr < PCR_COUNT for event in log.events),
        pcrs={
            bank: {pcr: one.pcrs[pcr] for pcr in sorted(one.extended)}
            for bank, one in played.items()
        },
        opaque_events=sum(
            event.type != NO_ACTION and best is not None and not is_bound(event, best)
            for event in log.events
        ),
    )


def _replay_ima(entries: list[ImaEntry]) -> Replayed:
    sha1 = HashAlg.SHA1
    return Replayed(
        format="ima",
        banks=IMA_BANKS,
        startup_locality=None,
        events=len(entries),
        pcrs={bank: replay_ima(entries, bank) for bank in IMA_BANKS},
        opaque_events=sum(
            entry.is_violation or sha1.digest(ima.hashed(entry)) != entry.template_digest
            for entry in entries
        ),
    )


def _replay_cel(records: list[CelRecord]) -> Replayed:
    banks = tuple(bank for bank in HashAlg if any(bank in one.digests for one in records))
    return Replayed(
        format="cel",
        banks=banks,
        startup_locality=None,
        events=len(records),
        pcrs={bank: _extend(records, bank) for bank in banks},
        opaque_events=sum(
            any(bank.digest(one.text) != digest for bank, digest in one.digests.items())
            for one in records
        ),
    )


def _extend(records: Iterable[CelRecord], bank: HashAlg) -> dict[int, bytes]:
    pcrs: dict[int, bytes] = {}
    zero = bytes(bank.size)
    for record in records:
        digest = record.digests.get(bank)
        if digest is not None and record.pcr is not None:
            pcrs[record.pcr] = bank.digest(pcrs.get(record.pcr, zero) + digest)
    return dict(sorted(pcrs.items()))
