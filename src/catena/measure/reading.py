"""A firmware log read once: every event beside what its digest proves of it.

Hashing an event's data is what reading a log costs, and facts, claims, story and comparison all
need to know how far the data can be believed. So it is found out once for each event and bank.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from catena.errors import FormatError
from catena.formats import efi
from catena.formats.tcglog import NO_ACTION, Event, EventLog
from catena.ids import HashAlg
from catena.measure.binding import Binding, partly_covered


class Reading(msgspec.Struct, frozen=True, gc=False):
    """An event and what its digest in one bank covers; a struct for the reason that events are."""

    event: Event
    binding: Binding
    content: bytes = b""
    """What the digest covers, if the binding is ``CONTENT``."""

    @property
    def extends(self) -> bool:
        """False for EV_NO_ACTION."""
        return self.event.type != NO_ACTION

    @property
    def whole(self) -> bool:
        """True if the data is proven byte for byte."""
        return self.binding is Binding.WHOLE

    @property
    def bound(self) -> bool:
        """True if the data is proven, at least in part."""
        return self.binding is not Binding.NONE

    @property
    def variable(self) -> efi.VariableData | None:
        """The data as a firmware variable, if it has that shape. *Untrusted* unless ``whole``."""
        try:
            return efi.parse_variable(self.event.data)
        except FormatError:
            return None


def read_events(log: EventLog, bank: HashAlg) -> tuple[Reading, ...]:
    """One reading for each event, in log order; EV_NO_ACTION is bound to nothing."""
    return tuple(_readings(log, bank))


def _readings(log: EventLog, bank: HashAlg) -> Iterator[Reading]:
    """``binding`` of every event, with what is the same for all of them looked up once."""
    hasher = bank.hasher
    for event in log.events:
        digest = event.digests.get(bank)
        if digest is None or event.type == NO_ACTION:
            yield Reading(event, Binding.NONE)
        elif hasher(event.data).digest() == digest:
            yield Reading(event, Binding.WHOLE)
        else:
            yield Reading(event, *partly_covered(event, bank, digest))
