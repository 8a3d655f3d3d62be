"""The order in which events may follow each other in a record.

1. A record begins with ``gate-start``. A later one names the same boot, and what it found in
   the PCR is what the record replays to at that place.
2. Times do not go back.
3. ``create`` and ``exec`` follow a ``policy`` of the same gate, and name the one in force.
4. ``exec`` names a container that was created and has not exited, with the image it was
   created from; ``exit`` a container that was created and has not exited.

``deny`` may stand anywhere behind ``gate-start``: a gate without a policy refuses everything. A
container may be created again without an ``exit`` between: not every failed start is deleted.

The gate checks this before it writes, a verifier after it has replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from catena.containers.record.refused import (
    NoGateStart,
    NoPolicyInForce,
    NoSuchContainer,
    OtherBoot,
    RecordMismatch,
    TimeWentBack,
)
from catena.formats.containerlog import (
    ContainerEvent,
    Create,
    Deny,
    Exec,
    Exit,
    GateStart,
    PolicyInForce,
)
from catena.ids import HashAlg


@dataclass(slots=True)
class Sequence:
    """Where a record stands. ``live`` maps containers to the images they were created from."""

    boot: str = ""
    policy: str = ""
    last: datetime | None = None
    live: dict[str, str] = field(default_factory=dict)

    def copy(self) -> Sequence:
        """The same place, to go on from it and perhaps come back."""
        return replace(self, live=dict(self.live))

    def advance(self, event: ContainerEvent, found: Mapping[HashAlg, bytes]) -> None:
        """Take one more event; ``found`` is the PCR before it. Raises ``RecordRefused``."""
        if not self.boot and not isinstance(event, GateStart):
            raise NoGateStart("a record begins with gate-start", got=_kind(event))
        if self.last is not None and event.at < self.last:
            raise TimeWentBack(
                "an event is older than the one before it",
                expected=self.last.isoformat(),
                got=event.at.isoformat(),
            )
        self._take(event, found)
        self.last = event.at

    def _take(self, event: ContainerEvent, found: Mapping[HashAlg, bytes]) -> None:
        match event:
            case GateStart():
                self._start(event, found)
            case PolicyInForce():
                self.policy = event.policy
            case Create():
                self._check_policy(event.policy)
                self.live[event.container] = event.image
            case Exec():
                self._check_policy(event.policy)
                self._check_live(event.container, event.image)
            case Exit():
                self._check_live(event.container)
                del self.live[event.container]
            case Deny():
                pass

    def _start(self, event: GateStart, found: Mapping[HashAlg, bytes]) -> None:
        if self.boot and event.boot != self.boot:
            raise OtherBoot("one record, two boots", expected=self.boot, got=event.boot)
        told = start_values(event)
        if told != dict(found):
            raise RecordMismatch(
                "a gate found another PCR than the record replays to",
                expected=_text(found),
                got=_text(told),
            )
        self.boot = event.boot
        self.policy = ""

    def _check_policy(self, policy: str) -> None:
        if not self.policy or policy != self.policy:
            raise NoPolicyInForce(
                "decided under a policy that is not in force",
                expected=self.policy or "a policy first",
                got=policy,
            )

    def _check_live(self, container: str, image: str | None = None) -> None:
        known = self.live.get(container)
        if known is None:
            raise NoSuchContainer("no such container is running", got=repr(container[:64]))
        if image not in {None, known}:
            raise NoSuchContainer(
                "the container was created from another image", expected=known, got=image
            )


def start_values(event: GateStart) -> dict[HashAlg, bytes]:
    """What a gate found in the PCR, by bank. Raises ``RecordMismatch`` for no bank or no value."""
    values = {}
    for name, value in event.banks.items():
        if name not in set(HashAlg) or len(value) != 2 * HashAlg(name).size:
            raise RecordMismatch("a gate-start names no PCR bank", got=name)
        values[HashAlg(name)] = bytes.fromhex(value)
    return values


def _kind(event: ContainerEvent) -> str:
    return str(event.__struct_config__.tag)


def _text(values: Mapping[HashAlg, bytes]) -> str:
    return ", ".join(f"{bank} {value.hex()}" for bank, value in values.items())
