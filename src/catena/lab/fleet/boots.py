"""Boots that were recorded on real machines, and the references that describe them exactly.

A folder holds one folder for each boot::

    NAME/eventlog.bin   the firmware's log   (/sys/kernel/security/tpm0/binary_bios_measurements)
    NAME/ima.bin        IMA's, if there is one  (…/ima/binary_runtime_measurements)

The PCR values that a node quotes are those that its logs replay to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from catena.appraise.capture import capture_firmware
from catena.appraise.reference import RELEASE_PCRS
from catena.errors import NotFound
from catena.evidence import LogEntry, LogKind, log_entry
from catena.formats import efi, ima, tcglog
from catena.formats.references import (
    FIRMWARE_TYPE,
    KEYSET_TYPE,
    RELEASE_TYPE,
    ExpectedEvent,
    KeySet,
    PcrTable,
    ReleaseManifest,
    Uki,
    VerityRoot,
)
from catena.formats.tcglog import Event, EventLog, EventType
from catena.ids import HashAlg, NodeId
from catena.measure.replay import replay, replay_ima

FIRMWARE_LOG = "eventlog.bin"
IMA_LOG = "ima.bin"
_BANKS = (HashAlg.SHA256, HashAlg.SHA384)
_UNMEASURED = (EventType.EV_SEPARATOR, EventType.EV_EFI_ACTION, EventType.EV_NO_ACTION)


class NoRecordedBoots(NotFound):
    """A folder without a single recorded boot."""

    code = "no-recorded-boots"
    remedy = f"Give --logs FOLDER with one folder a boot, each with {FIRMWARE_LOG} from a machine."


@dataclass(frozen=True, slots=True)
class RecordedBoot:
    """The logs of one boot, and the PCRs 0–15 of the SHA-256 bank that they replay to."""

    name: str
    firmware: bytes
    ima: bytes
    pcrs: tuple[bytes, ...]

    @property
    def logs(self) -> tuple[tuple[LogEntry, bytes], ...]:
        """Each log with its line of the manifest."""
        named: list[tuple[LogKind, bytes]] = [("tcg2", self.firmware)]
        if self.ima:
            named.append(("ima", self.ima))
        return tuple((log_entry(kind, content), content) for kind, content in named)

    def documents(self) -> tuple[tuple[str, bytes], ...]:
        """Release, key set and firmware that this boot follows: predicate type and predicate."""
        log = tcglog.parse(self.firmware)
        firmware = capture_firmware(
            self.firmware, _banks(log), name=self.name, version="1", node=NodeId("0" * 64)
        )
        return (
            (KEYSET_TYPE, msgspec.json.encode(_keyset(self.name, log))),
            (RELEASE_TYPE, msgspec.json.encode(_release(self.name, log, self.ima))),
            (FIRMWARE_TYPE, msgspec.json.encode(firmware)),
        )


def recorded_boots(folder: Path) -> tuple[RecordedBoot, ...]:
    """The boots of a folder, by name. Raises ``NoRecordedBoots``, ``FormatError``."""
    found = tuple(
        replayed(path.parent.name, path.read_bytes(), _content(path.with_name(IMA_LOG)))
        for path in sorted(folder.glob(f"*/{FIRMWARE_LOG}"))
    )
    if not found:
        raise NoRecordedBoots("no recorded boots", got=str(folder))
    return found


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def replayed(name: str, firmware: bytes, runtime: bytes) -> RecordedBoot:
    """A boot of these logs, of which IMA's may be empty. Raises ``FormatError``."""
    values = dict(replay(tcglog.parse(firmware), HashAlg.SHA256).pcrs)
    if runtime:
        values.update(replay_ima(ima.parse(runtime), HashAlg.SHA256))
    return RecordedBoot(name, firmware, runtime, tuple(values[pcr] for pcr in range(16)))


def _banks(log: EventLog) -> tuple[HashAlg, ...]:
    return tuple(bank for bank in _BANKS if bank in log.events[-1].digests)


def _expected(event: Event, name: str) -> ExpectedEvent:
    digests = {bank.value: digest.hex() for bank, digest in event.digests.items() if bank in _BANKS}
    return ExpectedEvent(id=name, pcr=event.pcr, what=name, digests=digests)


def _table(log: EventLog, pcrs: tuple[int, ...]) -> PcrTable:
    return {
        bank.value: {str(pcr): replay(log, bank).pcrs[pcr].hex() for pcr in pcrs}
        for bank in _banks(log)
    }


def _keyset(name: str, log: EventLog) -> KeySet:
    events = []
    for event in log.events:
        if event.pcr == 7 and event.type != EventType.EV_SEPARATOR:
            variable = efi.parse_variable(event.data).name
            late = event.type == EventType.EV_EFI_VARIABLE_AUTHORITY
            events.append(_expected(event, f"authority:{variable}" if late else variable))
    return KeySet(
        name=name,
        version="1",
        owner="catena lab fleet",
        certificates={},
        events=tuple(events),
        pcrs=_table(log, (7,)),
    )


def _release(name: str, log: EventLog, runtime: bytes) -> ReleaseManifest:
    """Whatever the boot measured beside firmware and keys, its kernel modules included."""
    return ReleaseManifest(
        name=name,
        version="1",
        security_version=1,
        architecture="recorded",
        kernel="recorded",
        command_line="",
        uki=Uki(authenticode={}, sections={}, file_sha256="", stub=""),
        root=VerityRoot(
            root_hash="",
            salt="",
            hash_algorithm="sha256",
            data_block_size=4096,
            hash_block_size=4096,
            data_blocks=1,
        ),
        disk_sha256="",
        events=(*_release_events(log), *_ima_events(runtime)),
        pcrs=_table(log, (4, 5, 9, 11, 12)),
    )


def _release_events(log: EventLog) -> list[ExpectedEvent]:
    events: list[ExpectedEvent] = []
    images = 0
    for event in log.events:
        if event.pcr not in RELEASE_PCRS or event.type in _UNMEASURED:
            continue
        name = f"pcr{event.pcr}:{event.index}"
        if event.type == EventType.EV_EFI_BOOT_SERVICES_APPLICATION:
            name, images = (f"image{images}" if images else "uki"), images + 1
        events.append(_expected(event, name))
    return events


def _ima_events(runtime: bytes) -> list[ExpectedEvent]:
    return [
        ExpectedEvent(
            id=entry.path,
            pcr=10,
            what=entry.path,
            digests={bank.value: ima.replay_digest(entry, bank).hex() for bank in _BANKS},
        )
        for entry in ima.parse(runtime)[1:]
    ]
