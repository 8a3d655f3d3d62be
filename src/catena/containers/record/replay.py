"""What a record proves: that its events, in this order, are what was extended.

A record is CEL-TLV (``formats.cel``); the digests of each record are over exactly the bytes of
its content, in the same banks all through, and go into one PCR or NV index. Reading it proves
that contents belong to digests. That the digests belong to a PCR is for the caller to compare:
``replay`` gives the value after each event. Nothing here does I/O; a verifier uses it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Events
from dataclasses import dataclass

from catena.containers.record.refused import NoGateStart, RecordMismatch
from catena.containers.record.sequence import Sequence, start_values
from catena.formats import cel, containerlog
from catena.formats.cel import CelRecord
from catena.formats.containerlog import ContainerEvent, GateStart
from catena.ids import HashAlg


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One event and what was extended for it. Exactly one of ``pcr`` and ``nv_index`` is set."""

    index: int
    pcr: int | None
    nv_index: int | None
    digests: dict[HashAlg, bytes]
    event: ContainerEvent
    offset: int


def read_record(data: bytes) -> tuple[RecordedEvent, ...]:
    """The events of a record, each proven to have the digests that it has beside it.

    Raises ``FormatError``, or ``RecordMismatch`` for a content that has other digests, for
    banks that differ from record to record, and for more than one PCR.
    """
    events: list[RecordedEvent] = []
    for record in cel.parse_tlv(data):
        event = _event(record)
        _check_same_place(event, events[0] if events else event)
        events.append(event)
    return tuple(events)


def replay(
    events: Events[RecordedEvent], bank: HashAlg, start: bytes | None = None
) -> tuple[bytes, ...]:
    """The PCR's value in ``bank`` after each event, from ``start`` (reset: zeros).

    Raises ``RecordMismatch`` for a bank that the record does not have.
    """
    value = bytes(bank.size) if start is None else start
    values = []
    for event in events:
        if bank not in event.digests:
            raise RecordMismatch("the record has no such bank", got=bank.value)
        value = bank.digest(value + event.digests[bank])
        values.append(value)
    return tuple(values)


def start_of(events: Events[RecordedEvent]) -> dict[HashAlg, bytes]:
    """What the first gate says it found in the PCR, by bank: *untrusted* until a verifier explains it.

    Raises ``NoGateStart``, or ``RecordMismatch`` if these are not the record's banks.
    """
    first = events[0].event if events else None
    if not isinstance(first, GateStart):
        raise NoGateStart("a record begins with gate-start")
    values = start_values(first)
    if set(values) != set(events[0].digests):
        raise RecordMismatch("the first gate-start is about other banks than the record")
    return values


def check_sequence(events: Events[RecordedEvent]) -> Sequence:
    """Where the record stands after all of its events. Raises ``RecordRefused``."""
    sequence = Sequence()
    values = start_of(events)
    for event in events:
        sequence.advance(event.event, values)
        values = extended(values, event.digests)
    return sequence


def extended(
    values: Mapping[HashAlg, bytes], digests: Mapping[HashAlg, bytes]
) -> dict[HashAlg, bytes]:
    """The PCR in each bank after one more extend (TPM 2.0 Part 3, 22.2)."""
    return {bank: bank.digest(value + digests[bank]) for bank, value in values.items()}


def _event(record: CelRecord) -> RecordedEvent:
    for bank, digest in record.digests.items():
        if bank.digest(record.content) != digest:
            raise RecordMismatch(
                f"record {record.index} was altered: its {bank} digest is of something else",
                expected=digest.hex(),
            )
    return RecordedEvent(
        index=record.index,
        pcr=record.pcr,
        nv_index=record.nv_index,
        digests=record.digests,
        event=containerlog.parse_record(record),
        offset=record.offset,
    )


def _check_same_place(event: RecordedEvent, first: RecordedEvent) -> None:
    if not event.digests or event.digests.keys() != first.digests.keys():
        raise RecordMismatch(f"record {event.index} has other banks than the first")
    if (event.pcr, event.nv_index) != (first.pcr, first.nv_index):
        raise RecordMismatch(f"record {event.index} is about another PCR than the first")
