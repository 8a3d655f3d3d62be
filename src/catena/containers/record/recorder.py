"""Writing a record: nothing may start that is not durable in it and extended into the TPM.

Each batch of events (``batches``) takes these steps; a crash between any two of them is repaired
by ``recover`` (``recovery`` says how):

1. give every event its time, and refuse those that do not follow (``sequence``);
2. write them behind the last event, and fsync: an error takes the file back, nothing was extended;
3. extend each event's digests, in order; who waits for it is answered as soon as it is extended.

When step 3 fails, or step 2 cannot be undone, file and TPM may disagree: the recorder stops, and
refuses everything until another one has recovered. No error of the TPM is ever passed over.

Times never go back: where the clock does, events have the time of the one before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from catena.containers.record import recovery
from catena.containers.record.batches import Batches, Ticket
from catena.containers.record.failure import RecorderStopped, RecordFull, RecordUnwritable
from catena.containers.record.file import RecordFile
from catena.containers.record.recovery import Place, Values
from catena.containers.record.refused import NoGateStart, RecordMismatch
from catena.containers.record.replay import extended
from catena.containers.record.room import Commands, Room
from catena.containers.record.sequence import Sequence
from catena.errors import CatenaError
from catena.formats import cel, containerlog
from catena.formats.cel import CelRecord
from catena.formats.containerlog import (
    CONTAINER_PCR,
    ContainerEvent,
    GateStart,
)
from catena.ids import HashAlg

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Extender(Protocol):
    """One PCR, or something that extends like it (``tpm.extender``)."""

    def banks(self) -> tuple[HashAlg, ...]:
        """Its banks; the same all the time."""

    def read(self, bank: HashAlg) -> bytes:
        """Its value."""

    def extend(self, digests: Mapping[HashAlg, bytes]) -> None:
        """Extend all banks at once."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery found: how many events there are, how many it still had to extend.

    ``cut`` are the bytes of an event that was cut short, ``live`` maps the containers that the
    record knows as running to their images.
    """

    events: int
    extended: int
    cut: int
    live: dict[str, str]


@dataclass(slots=True)
class _State:
    """Where the record stands: after its last event the PCR is ``values``."""

    values: Values = field(default_factory=dict)
    sequence: Sequence = field(default_factory=Sequence)
    room: Room = field(default_factory=Room)
    begun: bool = False

    def copy(self) -> _State:
        return replace(self, sequence=self.sequence.copy(), room=self.room.copy())

    def follow(self, event: ContainerEvent) -> None:
        """Raises ``RecordRefused`` if ``event`` does not come next."""
        if not self.begun and not isinstance(event, GateStart):
            raise NoGateStart("a gate begins with gate-start", got=type(event).__name__)
        self.sequence.advance(event, self.values)
        self.begun = True

    def take(self, event: ContainerEvent, record: CelRecord, size: int) -> None:
        """One more event. Raises ``RecordRefused`` or ``RecordFull``, and changes nothing then."""
        self.room.check(event, size)
        self.follow(event)
        self.room.take(event, size)
        self.values = extended(self.values, record.digests)


class _Prepared(NamedTuple):
    """An event that waits, and what is written and extended for it."""

    ticket: Ticket
    event: ContainerEvent
    record: CelRecord
    wire: bytes


class Recorder:
    """Appends events to the record at ``path`` and to the TPM. ``recover`` comes first.

    ``tpm`` extends ``pcr``, or ``nv_index`` if that is given. ``boot`` is the kernel's boot ID.
    ``append`` may be called by many threads at once.
    """

    def __init__(
        self,
        path: Path,
        tpm: Extender,
        now: Callable[[], datetime],
        *,
        pcr: int = CONTAINER_PCR,
        nv_index: int | None = None,
        boot: str = "",
    ) -> None:
        self.path = path
        self.boot = boot or _BOOT_ID.read_text().strip()
        self._tpm = tpm
        self._banks = tpm.banks()
        self._now = now
        self._place = Place(pcr if nv_index is None else None, nv_index)
        self._file: RecordFile | None = None
        self._state = _State()
        self._commands = Commands()
        self._writing = threading.Lock()
        """Held while file, TPM and ``_state`` move on together."""
        self._stopped: CatenaError | None = RecorderStopped("the record was not recovered yet")
        self._batches = Batches(self._commit)

    def recover(self) -> Recovered:
        """Take the record up where it was left, or begin this boot's; complete what is pending.

        Also after a failure that stopped the recorder. Raises ``RecordRefused`` for a record that
        is not what was extended, what ``RecordFile`` raises, and what the TPM does; then nothing
        can be appended.
        """
        with self._writing:
            self._close(RecorderStopped("recovery failed"))
            try:
                self._file = RecordFile(self.path)
                found = self._recover(self._file)
            except BaseException:
                self._close(None)
                raise
            self._stopped = None
        return found

    def gate_start(self, catena: str) -> GateStart:
        """The event that every gate appends first, with what it found in the PCR."""
        state = self._state
        banks = {bank.value: value.hex() for bank, value in state.values.items()}
        return GateStart(at=self._time(state), boot=self.boot, catena=catena, banks=banks)

    def append(self, event: ContainerEvent) -> None:
        """Record ``event``, with the time of now; it is durable and extended when this returns.

        In a full record a command that was recorded before is not recorded again (``room``).
        Raises ``RecordRefused`` if it does not follow what was recorded (``sequence``),
        ``RecordUnwritable`` or ``RecordFull`` if it was not recorded, ``FormatError`` if it is no
        event, ``RecorderStopped`` if it is not known to be recorded and extended.
        """
        self._batches.submit(event)

    def is_live(self, container: str) -> bool:
        """Whether the record knows the container as running."""
        return container in self._state.sequence.live

    def close(self) -> None:
        """Record nothing more, and let another gate."""
        with self._writing:
            self._close(RecorderStopped("the recorder was closed"))

    def _close(self, why: CatenaError | None) -> None:
        self._stopped = why or self._stopped
        if self._file is not None:
            self._file.close()
            self._file = None

    def _recover(self, file: RecordFile) -> Recovered:
        data = file.read()
        boot = recovery.boot_of(data)
        if boot not in {None, self.boot}:
            file.archive(str(boot))
            data = b""
        standing = recovery.stand(data, self._read(), self._place)
        file.cut(standing.size)  # also makes durable what a killed gate had only written
        for event in standing.pending:
            self._tpm.extend(event.digests)
        if self._read() != standing.values:
            raise RecordMismatch("something else extends the record's PCR")
        self._state = _State(standing.values, standing.sequence.copy(), standing.room())
        self._commands = Commands()
        self._commands.note(one.event for one in standing.events)
        return Recovered(
            events=len(standing.events),
            extended=len(standing.pending),
            cut=len(data) - standing.size,
            live=dict(standing.sequence.live),
        )

    def _read(self) -> Values:
        return {bank: self._tpm.read(bank) for bank in self._banks}

    def _commit(self, batch: list[Ticket]) -> None:
        """The steps of the module for one batch; settles each of its tickets."""
        with self._writing:
            if self._stopped is not None or self._file is None:
                _settle(batch, self._refusal)
                return
            try:
                for group in _apart(batch):
                    self._commit_to(self._file, group)
            except RecordUnwritable as error:
                _settle(batch, partial(RecordUnwritable, error.message, got=error.got))
            except CatenaError as error:
                self._stopped = error
                _settle(batch, self._refusal)
            except BaseException:
                self._stopped = RecorderStopped("the recorder was interrupted")
                raise

    def _commit_to(self, file: RecordFile, batch: list[Ticket]) -> None:
        state = self._state.copy()
        ready = [one for ticket in batch if (one := self._prepared(ticket, state))]  # (1)
        if not ready:
            return
        file.append(b"".join(one.wire for one in ready))  # (2)
        self._state = state
        self._commands.note(one.event for one in ready)
        for one in ready:  # (3)
            self._tpm.extend(one.record.digests)
            one.ticket.settle()

    def _prepared(self, ticket: Ticket, state: _State) -> _Prepared | None:
        """An event that follows ``state``, which it takes on; None if nothing is written for it."""
        stamped = msgspec.structs.replace(ticket.event, at=self._time(state))
        try:
            event = containerlog.abridge(stamped)
            record = self._record(event, state.room.count)
            wire = cel.encode_tlv(record)
            if self._goes_on(event, len(wire), state):
                ticket.settle()
                return None
            state.take(event, record, len(wire))
        except CatenaError as error:
            ticket.settle(error)
            return None
        return _Prepared(ticket, event, record, wire)

    def _goes_on(self, event: ContainerEvent, size: int, state: _State) -> bool:
        """Whether a command that was recorded before may run without being recorded once more."""
        try:
            state.room.check(event, size)
        except RecordFull:
            if self._commands.hold(event):
                state.follow(event)
                return True
        return False

    def _record(self, event: ContainerEvent, index: int) -> CelRecord:
        return containerlog.to_record(
            index,
            containerlog.encode(event),
            self._banks,
            pcr=self._place.pcr,
            nv_index=self._place.nv_index,
        )

    def _time(self, state: _State) -> datetime:
        now = self._now().astimezone(UTC)
        last = state.sequence.last
        return now if last is None else max(now, last)

    def _refusal(self) -> RecorderStopped:
        return RecorderStopped("nothing is recorded any more", got=str(self._stopped))


def _apart(batch: list[Ticket]) -> list[list[Ticket]]:
    """The batch in the pieces that are written together: a gate-start is written alone."""
    groups: list[list[Ticket]] = [[]]
    for ticket in batch:
        if isinstance(ticket.event, GateStart):
            groups += [[ticket], []]
        else:
            groups[-1].append(ticket)
    return groups


def _settle(tickets: list[Ticket], error: Callable[[], CatenaError]) -> None:
    """Answer those who still wait, each with an error of its own."""
    for ticket in tickets:
        ticket.settle(error())
