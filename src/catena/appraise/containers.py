"""What a proven container record says, whatever the references are: counts, uses, faults.

The record is the gate's word, believed because the boot proved the gate; but root on the host could
speak in its place, so it must at least be consistent::

    gate-start  first; names the PCR's value that it found, and always the same kernel boot
    policy      by every gate before anything may run; create and exec name the one in force,
                deny one that is or was
    exec        only in a container that was created and is not gone

Whatever breaks this is a *fault*, and a start with a fault is *unsound*. Reading goes on where it
stopped: ``read_record`` of a longer record costs what is new. All that is kept is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from catena.appraise.recorded import ProvenRecord, proven_records
from catena.errors import FormatError
from catena.formats import containerlog
from catena.formats.cel import CelRecord
from catena.formats.containerlog import (
    ContainerEvent,
    Create,
    Deny,
    Exec,
    Exit,
    GateStart,
    PolicyInForce,
)
from catena.measure.escape import escape

MAX_FAULTS = 64
MAX_TOLD = 256
MAX_USES = 1024
MAX_POLICIES = 64
MAX_RUNNING = 16_384
MAX_IMAGES = 1024
MAX_SHOWN = 256
MAX_COMMAND = 120
CLOCK_SLACK = timedelta(minutes=5)
"""How far time may go back: events are written in another order than they were timed, and clocks
are set after a boot."""


class Fault(msgspec.Struct, frozen=True, gc=False):
    """What is wrong with one record, by its number."""

    record: int
    code: str
    message: str


class Governing(msgspec.Struct, frozen=True, gc=False):
    """A policy that was in force, as the record names it; ``policy`` is its digest."""

    policy: str
    name: str
    version: int
    record: int


class Use(msgspec.Struct, frozen=True, gc=False):
    """Starts and commands that one policy allowed one publisher for one repository.

    ``record`` and ``container`` are of the first.
    """

    policy: str
    repository: str
    publisher: str
    record: int
    container: str
    count: int


class Told(msgspec.Struct, frozen=True, gc=False):
    """One event for people. ``fault`` is empty where it is in order.

    What ran belongs to the use that has its ``policy``, ``repository`` and ``publisher``.
    """

    record: int
    at: str
    kind: str
    container: str = ""
    sandbox: str = ""
    image: str = ""
    repository: str = ""
    publisher: str = ""
    signature: str = ""
    policy: str = ""
    what: str = ""
    fault: str = ""

    @property
    def use(self) -> tuple[str, str, str]:
        """What its use goes by."""
        return self.policy, self.repository, self.publisher


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What the record says in sum. ``told`` are its last events, ``faults`` its first faults.

    ``policy`` is in force at the end. ``unsound`` counts starts and commands that have a fault.
    ``images`` stops at ``MAX_IMAGES``.
    """

    records: int = 0
    gates: int = 0
    started: int = 0
    executed: int = 0
    refused: int = 0
    unsound: int = 0
    policy: str = ""
    policies: tuple[Governing, ...] = ()
    uses: tuple[Use, ...] = ()
    publishers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    faults_total: int = 0
    told: tuple[Told, ...] = ()


class Running(NamedTuple):
    """A container that was created and is not gone."""

    image: str
    repository: str
    publisher: str
    policy: str


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """An account, and where its reading stands: the place, what runs, the clock, the boot."""

    place: ProvenRecord
    account: Account
    running: Mapping[str, Running] = field(default_factory=dict)
    latest: datetime | None = None
    boot: str = ""


def read_record(
    log: bytes, nothing: ProvenRecord, proven: ProvenRecord, known: ReadRecord | None
) -> ReadRecord:
    """Read what is proven of ``log``: only what is new since ``known``, from which it goes on."""
    if known is not None and known.place == proven:
        return known
    known = known or ReadRecord(nothing, Account())
    reading = _Reading(known)
    start = known.place
    for record, _ in proven_records(log, start.size, start.records, proven.size):
        reading.add(record)
    return reading.end(proven)


class _Reading:
    """One pass over new records, with everything that the account needs, unfrozen."""

    def __init__(self, known: ReadRecord) -> None:
        account = known.account
        self._bank, self._value = known.place.bank, known.place.value
        self._counts = {name: getattr(account, name) for name in _COUNTS}
        self._policy = account.policy
        self._policies = {one.policy: one for one in account.policies}
        self._uses = {(one.policy, one.repository, one.publisher): one for one in account.uses}
        self._publishers, self._images = set(account.publishers), set(account.images)
        self._faults = list(account.faults)
        self._told = deque(account.told, MAX_TOLD)
        self._running = dict(known.running)
        self._latest, self._boot = known.latest, known.boot
        self._number = account.records
        self._first_fault = ""

    def end(self, place: ProvenRecord) -> ReadRecord:
        """Everything read, frozen."""
        account = Account(
            **self._counts,
            records=place.records,
            policy=self._policy,
            policies=tuple(self._policies.values()),
            uses=tuple(self._uses.values()),
            publishers=tuple(sorted(self._publishers)),
            images=tuple(sorted(self._images)),
            faults=tuple(self._faults),
            told=tuple(self._told),
        )
        return ReadRecord(place, account, self._running, self._latest, self._boot)

    def add(self, record: CelRecord) -> None:
        """Read one proven record; its digest was checked when it was proven."""
        self._number, self._first_fault = record.index, ""
        try:
            event = _parsed(record.content)
        except FormatError as error:
            self._fault("container-event-unreadable", str(error))
            self._tell(Told(record.index, "", "unreadable"))
        else:
            self._order(event)
            self._tell(self._read(event))
        self._value = self._bank.digest(self._value + record.digests[self._bank])

    def _read(self, event: ContainerEvent) -> Told:
        match event:
            case GateStart():
                return self._gate_start(event)
            case PolicyInForce():
                return self._policy_in_force(event)
            case Create():
                return self._create(event)
            case Exec():
                return self._exec(event)
            case Deny():
                return self._deny(event)
            case Exit():
                self._running.pop(event.container, None)
                return self._of(event, container=event.container)

    def _order(self, event: ContainerEvent) -> None:
        """Gate-start comes first, and time does not go back."""
        if self._number == 0 and not isinstance(event, GateStart):
            self._fault(
                "container-record-headless", "the record does not begin with a gate's start"
            )
        if self._latest is not None and self._latest - event.at > CLOCK_SLACK:
            self._fault(
                "container-time-reversed",
                f"the event is from {event.at:{_TIME}}, an earlier one from {self._latest:{_TIME}}",
            )
        self._latest = event.at if self._latest is None else max(self._latest, event.at)

    def _gate_start(self, event: GateStart) -> Told:
        self._counts["gates"] += 1
        if event.banks.get(self._bank.value) != self._value.hex():
            self._fault(
                "container-gate-contradicted",
                "the gate says that it found another value in the PCR than was there",
            )
        if self._boot and event.boot != self._boot:
            self._fault("container-boot-changed", "the gate runs under another kernel than before")
        self._boot = self._boot or event.boot
        self._policy = ""
        return self._of(event, what=f"catena {event.catena}")

    def _policy_in_force(self, event: PolicyInForce) -> Told:
        self._policy = event.policy
        if event.policy not in self._policies:
            if len(self._policies) < MAX_POLICIES:
                self._policies[event.policy] = Governing(
                    event.policy, _shown(event.name), event.version, self._number
                )
            else:
                self._too_many("policies")
        return self._of(event, policy=event.policy, what=f"{event.name}@{event.version}")

    def _create(self, event: Create) -> Told:
        self._counts["started"] += 1
        self._check_policy(event.policy)
        ran = Running(event.image, event.repository, event.publisher, event.policy)
        self._note_image(ran)
        if event.container in self._running or len(self._running) < MAX_RUNNING:
            self._running[event.container] = ran
        else:
            self._too_many("containers at once")
        self._count(event.container, ran)
        return self._of(
            event,
            container=event.container,
            sandbox=event.sandbox,
            image=event.image,
            repository=event.repository,
            publisher=event.publisher,
            signature=event.signature,
            policy=event.policy,
            what=_command(event.launch.argv),
        )

    def _exec(self, event: Exec) -> Told:
        """The publisher is the one under which the container was created."""
        self._counts["executed"] += 1
        self._check_policy(event.policy)
        ran = self._running.get(event.container)
        if ran is None or ran.image != event.image:
            self._fault(
                "container-never-created",
                "a command was let into a container of this image that was not there",
            )
            ran = Running(event.image, "", "", event.policy)
        self._count(event.container, ran)
        return self._of(
            event,
            container=event.container,
            image=event.image,
            repository=ran.repository,
            publisher=ran.publisher,
            policy=ran.policy,
            what=_command(event.launch.argv),
        )

    def _deny(self, event: Deny) -> Told:
        """A refusal may name no policy: there may be none, and that is why."""
        self._counts["refused"] += 1
        if event.policy and event.policy not in self._policies:
            self._fault(
                "container-policy-other", "the refusal names a policy that never was in force"
            )
        return self._of(
            event,
            container=event.container,
            image=event.image,
            repository=event.repository,
            policy=event.policy,
            what=f"{event.verb} refused: {event.code}: {event.message}",
        )

    def _check_policy(self, named: str) -> None:
        if not self._policy:
            self._fault("container-before-policy", "no container policy was in force yet")
        elif named != self._policy:
            self._fault("container-policy-other", "the event names a policy that is not in force")

    def _note_image(self, ran: Running) -> None:
        for names, name in ((self._images, ran.image), (self._publishers, ran.publisher)):
            if len(names) < MAX_IMAGES:
                names.add(_shown(name))

    def _count(self, container: str, ran: Running) -> None:
        """A sound start or command is a use, for which a policy has to account."""
        slot = (ran.policy, _shown(ran.repository), _shown(ran.publisher))
        use = self._uses.get(slot)
        if use is None and len(self._uses) >= MAX_USES:
            self._too_many("repositories and publishers")
        if self._first_fault:
            self._counts["unsound"] += 1
        elif use is None:
            self._uses[slot] = Use(*slot, self._number, _shown(container), 1)
        else:
            self._uses[slot] = msgspec.structs.replace(use, count=use.count + 1)

    def _too_many(self, what: str) -> None:
        self._fault("container-record-overflow", f"more {what} than can be accounted for")

    def _fault(self, code: str, message: str) -> None:
        self._first_fault = self._first_fault or code
        self._counts["faults_total"] += 1
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(Fault(self._number, code, message))

    def _of(self, event: ContainerEvent, **words: str) -> Told:
        """The event for people; every word of it is the gate's, so nothing stays as it was."""
        shown = {name: _shown(word) for name, word in words.items()}
        kind = str(event.__struct_config__.tag)
        return Told(self._number, f"{event.at:{_TIME}}", kind, **shown)

    def _tell(self, told: Told) -> None:
        fault = self._first_fault
        self._told.append(msgspec.structs.replace(told, fault=fault) if fault else told)


_COUNTS = ("gates", "started", "executed", "refused", "unsound", "faults_total")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def _parsed(content: bytes) -> ContainerEvent:
    event = containerlog.parse(content)
    if event.at.utcoffset() != timedelta():
        raise FormatError("the time of a container event is not in UTC")
    return event


def _shown(word: str) -> str:
    return escape(word, MAX_SHOWN)


def _command(argv: tuple[str, ...]) -> str:
    return escape(" ".join(argv), MAX_COMMAND)
