"""The order that a firmware log must have (TRUST, attestation step h; PFP 1.06, clauses 8 and 10).

A replay proves digests and their order *within* each PCR. Event types, the order between PCRs
and the fields of events that extend nothing are the sender's words. So that no meaning rests on
those, a log is refused unless, in the bank that was quoted:

1. it is a log of PCRs, and the bank was really extended by firmware;
2. ``EV_NO_ACTION`` carries no digest: what extends nothing cannot pretend to have been measured;
3. the startup locality is told at most once, well-formed, before anything extends PCR 0;
4. every event that extends has a digest in the bank;
5. in PCRs 0–7 an event is a separator by type exactly when it is one by digest, exactly one
   per PCR, and none is the separator that firmware writes after an error;
6. after its PCR's separator come only the kinds of events that belong there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from catena.errors import FormatError, Refusal
from catena.formats import efi
from catena.formats.tcglog import (
    NO_ACTION,
    STARTUP_LOCALITY,
    Event,
    EventLog,
    EventType,
    event_type_name,
)
from catena.ids import HashAlg
from catena.measure.quirks import NONE, Quirks
from catena.measure.replay import is_startup_locality

FIRMWARE_PCRS = range(8)
STARTUP_LOCALITIES = frozenset({0, 3, 4})

_SEPARATORS = (b"\0\0\0\0", b"\xff\xff\xff\xff")
_ERROR_SEPARATOR = b"\1\0\0\0"
_SEPARATOR = int(EventType.EV_SEPARATOR)
_CONFIGURATION = frozenset({"SecureBoot", "PK", "KEK", "SetupMode", "AuditMode", "DeployedMode"})

# Boot manager and loader go on measuring after they were handed control: boot options and
# tables that real firmware measures late (PCR 1), what is started (4), from where (5), and which
# key vouched for it (7). PCRs 0, 2, 3 and 6 are closed: code measured there later ran too late.
_AFTER_SEPARATOR: Mapping[int, frozenset[int]] = {
    1: frozenset(
        {
            EventType.EV_EFI_VARIABLE_BOOT,
            EventType.EV_EFI_VARIABLE_BOOT2,
            EventType.EV_EFI_HANDOFF_TABLES,
            EventType.EV_EFI_HANDOFF_TABLES2,
        }
    ),
    4: frozenset({EventType.EV_EFI_BOOT_SERVICES_APPLICATION, EventType.EV_EFI_ACTION}),
    5: frozenset(
        {
            EventType.EV_EFI_GPT_EVENT,
            EventType.EV_EFI_GPT_EVENT2,
            EventType.EV_EFI_ACTION,
            EventType.EV_EVENT_TAG,
        }
    ),
    7: frozenset({EventType.EV_EFI_VARIABLE_AUTHORITY}),
}


class BadGrammar(Refusal):
    """Base of the refusals of this module; ``index`` is the event at fault, if one is."""

    code = "bad-event-log"
    remedy = "The log does not describe a boot of sound firmware. Do not admit the machine."

    def __init__(
        self,
        message: str,
        *,
        index: int | None = None,
        expected: str | None = None,
        got: str | None = None,
    ) -> None:
        super().__init__(message, expected=expected, got=got)
        self.index = index


class CcelAsTpmLog(BadGrammar):
    """A confidential VM's log, whose indices are registers and not PCRs."""

    code = "ccel-as-tpm-log"
    remedy = "Send the TPM's own event log, not the ACPI CCEL table's."


class NeverExtendedBank(BadGrammar):
    """Firmware left the bank alone, so anyone after it could have filled it."""

    code = "never-extended-bank"
    remedy = "Enable this PCR bank in firmware setup, or quote one that firmware extends."


class ExtendedNoAction(BadGrammar):
    """An ``EV_NO_ACTION`` with a digest: a measurement hidden from replay, or an invention."""

    code = "extended-no-action"


class ForgedStartupLocality(BadGrammar):
    """A startup locality that is malformed, told twice, too late or impossible."""

    code = "forged-startup-locality"


class MissingDigest(BadGrammar):
    """An event that extends other banks but not the quoted one."""

    code = "missing-digest"


class RetypedEvent(BadGrammar):
    """The event's type says separator and its digest does not, or the other way round."""

    code = "retyped-event"


class ErrorSeparator(BadGrammar):
    """Firmware capped the PCR after an error before boot."""

    code = "error-separator"
    remedy = "Firmware reported an error before boot: repair or replace the machine."


class DoubledSeparator(BadGrammar):
    """A PCR has two separators."""

    code = "doubled-separator"


class MissingSeparator(BadGrammar):
    """A PCR of the firmware has no separator: its measurements have no end."""

    code = "missing-separator"


class EventAfterSeparator(BadGrammar):
    """Something was measured into a PCR after firmware had closed it."""

    code = "event-after-separator"


def separator_digests(bank: HashAlg) -> frozenset[bytes]:
    """Digests of the separators that UEFI and older firmware write (PFP 1.06, 10.4.1)."""
    return frozenset(bank.digest(value) for value in _SEPARATORS)


def check(log: EventLog, bank: HashAlg, quirks: Quirks = NONE) -> None:
    """Refuse ``log`` unless it follows the six rules above in ``bank``; raises the first fault."""
    for fault in problems(log, bank, quirks):
        raise fault


def problems(log: EventLog, bank: HashAlg, quirks: Quirks = NONE) -> Iterator[BadGrammar]:
    """Every fault of ``log`` in ``bank``, rule by rule; none means that it is sound.

    ``quirks`` may let exact measurements stand behind their PCR's separator.
    """
    yield from _extended(log, bank)
    yield from _no_actions(log)
    yield from _startup_locality(log)
    yield from _digests(log, bank)
    yield from _separators(log, bank, quirks)


def _extended(log: EventLog, bank: HashAlg) -> Iterator[BadGrammar]:  # (1)
    if log.format == "ccel":
        yield CcelAsTpmLog("a CCEL log was offered as a TPM event log")
    blank = bytes(bank.size)
    extended = any(
        event.pcr in FIRMWARE_PCRS
        and event.type != NO_ACTION
        and event.digests.get(bank, blank) != blank
        for event in log.events
    )
    if not extended:
        yield NeverExtendedBank(f"firmware extended no PCR of the {bank} bank")


def _no_actions(log: EventLog) -> Iterator[BadGrammar]:  # (2)
    for event in log.events:
        if event.type == NO_ACTION and any(map(any, event.digests.values())):
            yield ExtendedNoAction("EV_NO_ACTION carries a digest", index=event.index)


def _startup_locality(log: EventLog) -> Iterator[BadGrammar]:  # (3)
    told = extended = False
    for event in log.events:
        if is_startup_locality(event):
            if told or extended:
                yield ForgedStartupLocality(
                    "startup locality told twice or after PCR 0 was extended", index=event.index
                )
            yield from _locality(event)
            told = True
        elif event.pcr == 0 and event.type != NO_ACTION:
            extended = True


def _locality(event: Event) -> Iterator[BadGrammar]:
    locality = event.data[len(STARTUP_LOCALITY) :]
    if event.pcr != 0 or len(locality) != 1 or locality[0] not in STARTUP_LOCALITIES:
        yield ForgedStartupLocality(
            "impossible startup locality",
            index=event.index,
            expected="0, 3 or 4 in PCR 0",
            got=f"{locality[:4].hex()} in PCR {event.pcr}",
        )


def _digests(log: EventLog, bank: HashAlg) -> Iterator[BadGrammar]:  # (4)
    for event in log.events:
        if event.type != NO_ACTION and bank not in event.digests:
            yield MissingDigest(f"event {event.index} has no {bank} digest", index=event.index)


def _separators(log: EventLog, bank: HashAlg, quirks: Quirks) -> Iterator[BadGrammar]:  # (5), (6)
    separators = separator_digests(bank)
    error = bank.digest(_ERROR_SEPARATOR)
    closed: set[int] = set()
    for event in log.events:
        if event.type == NO_ACTION or event.pcr not in FIRMWARE_PCRS:
            continue
        pcr, digest = event.pcr, event.digests.get(bank)
        if digest == error:
            yield ErrorSeparator(f"PCR {pcr} was closed after an error", index=event.index)
        elif (event.type == _SEPARATOR) != (digest in separators):
            yield RetypedEvent("type and digest disagree on a separator", index=event.index)
        if digest in separators or digest == error:
            if pcr in closed:
                yield DoubledSeparator(f"PCR {pcr} has two separators", index=event.index)
            closed.add(pcr)
        elif pcr in closed and event.type != _SEPARATOR:
            quirk = quirks.find(pcr, digest, bank)
            if quirk is None or not quirk.allows.after_separator:
                yield from _late(event)
    missing = sorted(set(FIRMWARE_PCRS) - closed)
    if missing:
        yield MissingSeparator(f"no separator in PCR {', '.join(map(str, missing))}")


def _late(event: Event) -> Iterator[BadGrammar]:
    """An event behind its PCR's separator, unless its kind belongs there."""
    allowed = _AFTER_SEPARATOR.get(event.pcr, frozenset())
    if event.type not in allowed or (event.pcr == 7 and _is_configuration(event)):
        yield EventAfterSeparator(
            f"event {event.index} came after the separator of PCR {event.pcr}",
            index=event.index,
            got=event_type_name(event.type),
        )


def _is_configuration(event: Event) -> bool:
    """True for a Secure Boot variable as a whole, whatever type the event has been given."""
    try:
        variable = efi.parse_variable(event.data)
        if variable.guid == efi.EFI_GLOBAL_VARIABLE:
            return variable.name in _CONFIGURATION
        if variable.guid != efi.IMAGE_SECURITY_DATABASE:
            return False
        return not variable.data or bool(efi.parse_signature_lists(variable.data))
    except FormatError:
        return False
