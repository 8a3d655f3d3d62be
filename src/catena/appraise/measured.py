"""The measurements of one proven boot, firmware's and IMA's, as one list in log order.

Digests, PCRs and the order within each PCR are proven by the quote. ``type`` is *untrusted*
(no digest covers it); ``description`` and ``variable`` are read only from data bound to the
digest (TRUST, attestation step 5g).
"""

from __future__ import annotations

from dataclasses import dataclass

from catena.appraise.builtin import boot_aggregate_claim, builtin_claim
from catena.appraise.logs import Logs
from catena.appraise.reference import Slot
from catena.errors import FormatError
from catena.formats.efi import VariableData, parse_variable
from catena.formats.ima import ImaEntry, replay_digest
from catena.formats.tcglog import Event, EventLog, EventType, event_type_name
from catena.ids import HashAlg
from catena.measure.escape import escape
from catena.measure.facts import describe, is_bound

MAX_LINE = 300
MAX_PATH = 160


@dataclass(frozen=True, slots=True)
class MeasuredEvent:
    """One event; ``rule`` is the built-in rule that claims it, ``digest`` is hex.

    ``extends`` is false for EV_NO_ACTION. ``bound`` says that the data hashes to the digest.
    """

    index: int
    pcr: int
    type: str
    digest: str
    description: str
    rule: str | None
    extends: bool
    bound: bool
    variable: VariableData | None = None

    @property
    def slot(self) -> Slot:
        """What references claim it by."""
        return (self.pcr, self.digest)


def firmware_events(log: EventLog, bank: HashAlg) -> tuple[MeasuredEvent, ...]:
    """All events of the firmware log."""
    return tuple(_firmware_event(event, bank) for event in log.events)


def ima_events(logs: Logs, covered: int, bank: HashAlg) -> tuple[MeasuredEvent, ...]:
    """The IMA entries that the quote covers; they follow after the firmware's events."""
    offset = len(logs.boot.events)
    return tuple(_ima_event(entry, offset, logs, bank) for entry in logs.ima[:covered])


def _firmware_event(event: Event, bank: HashAlg) -> MeasuredEvent:
    bound = is_bound(event, bank)
    return MeasuredEvent(
        index=event.index,
        pcr=event.pcr,
        type=event_type_name(event.type),
        digest=event.digests.get(bank, b"").hex(),
        description=describe(event, bank),
        rule=builtin_claim(event, bank),
        extends=event.type != EventType.EV_NO_ACTION,
        bound=bound,
        variable=_variable(event) if bound else None,
    )


def _variable(event: Event) -> VariableData | None:
    """The variable that a PCR 7 configuration event measured."""
    if event.type != EventType.EV_EFI_VARIABLE_DRIVER_CONFIG:
        return None
    try:
        return parse_variable(event.data)
    except FormatError:
        return None


def _ima_event(entry: ImaEntry, offset: int, logs: Logs, bank: HashAlg) -> MeasuredEvent:
    """An IMA entry as an event; a violation proves nothing about a file, so it is not bound."""
    algorithm, digest = entry.file_digest
    text = f"file {escape(entry.path, MAX_PATH)} ({escape(algorithm, MAX_PATH)}:{digest.hex()})"
    return MeasuredEvent(
        index=offset + entry.index,
        pcr=entry.pcr,
        type=f"IMA:{entry.template_name}",
        digest=replay_digest(entry, bank).hex(),
        description=escape(f"violation: {text}" if entry.is_violation else text, MAX_LINE),
        rule=boot_aggregate_claim(entry, logs.boot),
        extends=True,
        bound=not entry.is_violation,
    )
