"""The measurements of one proven boot, firmware's and IMA's, as one list in log order.

Digests, PCRs and the order within each PCR are proven by the quote. ``type`` is *untrusted*
(no digest covers it); ``description`` and ``variable`` are read only from data bound to the
digest (TRUST, attestation step 5g).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from catena.appraise.builtin import boot_aggregate_claim, builtin_claim
from catena.appraise.reference import Slot
from catena.formats.efi import VariableData
from catena.formats.ima import ImaEntry, replay_digest
from catena.formats.tcglog import EventLog, EventType, event_type_name
from catena.ids import HashAlg
from catena.measure.describe import describe_reading
from catena.measure.escape import escape
from catena.measure.quirks import Quirk, Quirks
from catena.measure.reading import Reading
from catena.measure.replay import Replay

MAX_LINE = 300
MAX_PATH = 160
_CONFIGURATION = int(EventType.EV_EFI_VARIABLE_DRIVER_CONFIG)


class Told(msgspec.Struct, frozen=True):
    """What an earlier appraisal said of an event whose log is not at hand any more."""

    type: str
    description: str


class MeasuredEvent(msgspec.Struct, frozen=True, gc=False):
    """One event; ``rule`` is the built-in rule that claims it, ``digest`` is hex.

    ``extends`` is false for EV_NO_ACTION. ``bound`` says that the data hashes to the digest.
    ``quirk`` is the quirk rule that recognises it. What ``source`` says in words is put together only when somebody asks.
    """

    index: int
    pcr: int
    digest: str
    rule: str | None
    extends: bool
    bound: bool
    source: Reading | ImaEntry | Told
    bank: HashAlg
    quirk: Quirk | None = None

    @property
    def slot(self) -> Slot:
        """What references claim it by."""
        return (self.pcr, self.digest)

    @property
    def is_quirk(self) -> bool:
        """Whether a quirk rule accounts for it."""
        return self.quirk is not None and self.quirk.allows.claim

    @property
    def type(self) -> str:
        """The event's type by its TCG name, or ``IMA:`` and the template."""
        if isinstance(self.source, Told):
            return self.source.type
        if isinstance(self.source, ImaEntry):
            return f"IMA:{self.source.template_name}"
        return event_type_name(self.source.event.type)

    @property
    def description(self) -> str:
        """One line for people."""
        if isinstance(self.source, Told):
            return self.source.description
        if isinstance(self.source, ImaEntry):
            return _describe_file(self.source)
        return describe_reading(self.source)

    @property
    def variable(self) -> VariableData | None:
        """The variable that a PCR 7 configuration event measured."""
        source = self.source
        if not isinstance(source, Reading) or source.event.type != _CONFIGURATION:
            return None
        return source.variable if source.bound else None


def firmware_events(
    readings: Iterable[Reading], bank: HashAlg, quirks: Quirks
) -> tuple[MeasuredEvent, ...]:
    """All events of the firmware log."""
    return tuple(_firmware_event(reading, bank, quirks) for reading in readings)


def ima_events(
    boot: EventLog, replayed: Replay, entries: Iterable[ImaEntry]
) -> tuple[MeasuredEvent, ...]:
    """IMA entries that the quote covers; they follow after the firmware's events.

    ``replayed`` is the firmware log's replay in the quoted bank.
    """
    return tuple(_ima_event(entry, boot, replayed) for entry in entries)


def _firmware_event(reading: Reading, bank: HashAlg, quirks: Quirks) -> MeasuredEvent:
    event = reading.event
    digest = event.digests.get(bank)
    quirk = quirks.find(event.pcr, digest, bank) if reading.whole else None
    return MeasuredEvent(
        index=event.index,
        pcr=event.pcr,
        digest="" if digest is None else digest.hex(),
        rule=quirk.label if quirk and quirk.allows.claim else builtin_claim(event, bank),
        quirk=quirk,
        extends=reading.extends,
        bound=reading.bound,
        source=reading,
        bank=bank,
    )


def _ima_event(entry: ImaEntry, boot: EventLog, replayed: Replay) -> MeasuredEvent:
    """An IMA entry as an event; a violation proves nothing about a file, so it is not bound."""
    bank = replayed.bank
    return MeasuredEvent(
        index=len(boot.events) + entry.index,
        pcr=entry.pcr,
        digest=replay_digest(entry, bank).hex(),
        rule=boot_aggregate_claim(entry, boot, replayed) if entry.index == 0 else None,
        extends=True,
        bound=not entry.is_violation,
        source=entry,
        bank=bank,
    )


def _describe_file(entry: ImaEntry) -> str:
    algorithm, digest = entry.file_digest
    text = f"file {escape(entry.path, MAX_PATH)} ({escape(algorithm, MAX_PATH)}:{digest.hex()})"
    return escape(f"violation: {text}" if entry.is_violation else text, MAX_LINE)
