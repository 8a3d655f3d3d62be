"""Where record and TPM stand after whatever happened: which events are still to be extended.

Events are extended only when their whole batch is on disk, in order, so after a crash at any moment
the PCR is the record's first *m* of *n* events, and the rest is at most one batch. A gate-start
is a batch of its own. Then:

1. An event that was cut short, and can be the beginning of one, was never extended; it goes.
2. The whole events are unaltered and in order (``replay``, ``sequence``).
3. There is an *m* after which the record replays to the PCR, in every bank at once.
4. The events behind it are one gate-start, or at most ``MAX_BATCH`` others. They are extended now.

Anything else is a record that was changed, or a PCR that something else extended.

What is *not* decided here: whether the PCR was at its reset value when the record began. A record
that was removed as a whole looks like one that was never begun; a verifier sees it, because
nothing in the boot log explains the value that the next gate says it found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from catena.containers.record.batches import MAX_BATCH
from catena.containers.record.refused import NoGateStart, RecordMismatch
from catena.containers.record.replay import (
    RecordedEvent,
    check_sequence,
    extended,
    read_record,
    start_of,
)
from catena.containers.record.room import Room
from catena.containers.record.sequence import Sequence
from catena.errors import FormatError
from catena.formats import cel, containerlog
from catena.formats.containerlog import GateStart
from catena.ids import HashAlg

Values = dict[HashAlg, bytes]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is extended: one of a PCR and an NV index."""

    pcr: int | None
    nv_index: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a record holds: ``events`` in ``size`` bytes, all but the last, ``pending``, extended.

    ``values`` are the PCR's when those are extended, too.
    """

    size: int
    events: tuple[RecordedEvent, ...]
    pending: tuple[RecordedEvent, ...]
    values: Values
    sequence: Sequence

    def room(self) -> Room:
        """What the events take of the record."""
        room = Room()
        ends = (*(one.offset for one in self.events[1:]), self.size)
        for one, end in zip(self.events, ends, strict=bool(self.events)):
            room.take(one.event, end - one.offset)
        return room


def boot_of(data: bytes) -> str | None:
    """The boot that a record says it is of; None if not even its first event is whole.

    Raises ``RecordMismatch``, ``NoGateStart``.
    """
    try:
        whole = data[: cel.record_end(data) or 0]
        first = [containerlog.parse_record(record) for record in cel.parse_tlv(whole)]
    except FormatError as error:
        raise _altered(error) from error
    if not first:
        return None
    if not isinstance(first[0], GateStart):
        raise NoGateStart("a record begins with gate-start")
    return first[0].boot


def stand(data: bytes, found: Mapping[HashAlg, bytes], place: Place) -> Standing:
    """Compare a record with the values of the PCR at ``place``. Raises ``RecordRefused``."""
    try:
        size = cel.complete_tlv(data)
        events = read_record(data[:size])
        remains = cel.cut_content(data[size:])
    except FormatError as error:
        raise _altered(error) from error
    if _is_whole(remains) or 0 in remains:
        raise RecordMismatch("what looks cut short in the record is more than an event")
    if not events:
        return Standing(size, (), (), dict(found), Sequence())
    told = Place(events[0].pcr, events[0].nv_index)
    if told != place:
        raise RecordMismatch("the record is about another PCR", expected=f"{place}", got=f"{told}")
    sequence = check_sequence(events)
    values, done = start_of(events), None
    for index, event in enumerate(events):
        done = index if values == found else done
        values = extended(values, event.digests)
    done = len(events) if values == found else done
    pending = _pending(events, done, values, found)
    return Standing(size, events, pending, values, sequence)


def _is_whole(content: bytes) -> bool:
    try:
        containerlog.parse(content)
    except FormatError:
        return False
    return True


def _pending(
    events: tuple[RecordedEvent, ...],
    done: int | None,
    values: Values,
    found: Mapping[HashAlg, bytes],
) -> tuple[RecordedEvent, ...]:
    if done is None:
        raise RecordMismatch(
            f"none of the record's {len(events)} events is where the PCR is",
            expected=_text(values),
            got=_text(found),
        )
    pending = events[done:]
    starts = any(isinstance(one.event, GateStart) for one in pending)
    if len(pending) > (1 if starts else MAX_BATCH):
        raise RecordMismatch(
            "the record is further ahead of the PCR than a gate writes",
            expected=f"a gate-start, or at most {MAX_BATCH} other events",
            got=f"{len(pending)} events",
        )
    return pending


def _altered(error: FormatError) -> RecordMismatch:
    return RecordMismatch(f"the record was altered: {error}")


def _text(values: Mapping[HashAlg, bytes]) -> str:
    return ", ".join(f"{bank} {value.hex()[:16]}…" for bank, value in values.items())
