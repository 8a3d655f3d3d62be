"""How much a record holds, who may use how much of it, and what goes on when it is full.

A record is one boot's, and evidence carries no more than ``cel.MAX_LOG`` of it. So that no one can
use it up by asking for what is refused, or by running commands, refusals and commands have a
share; so that a full record stays in order, its end is for gates, policies and exits.

A command that was recorded may be run again in the same container under the same policy when
there is no room to record it once more: probes are commands, and come every few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from catena.containers.record.failure import RecordFull
from catena.formats import cel
from catena.formats.containerlog import ContainerEvent, Create, Deny, Exec, Exit

RESERVE = 256 * 1024
"""Bytes at the end for gates, policies and exits: those of about a thousand containers."""

SHARES = {Deny: 1 / 4, Exec: 1 / 2}
"""Parts of what is in front of the reserve that refusals and commands may use."""


@dataclass(slots=True)
class Room:
    """``count`` events in ``size`` bytes; ``kinds`` are the bytes of each kind of event."""

    count: int = 0
    size: int = 0
    kinds: Counter[type] = field(default_factory=Counter)

    def copy(self) -> Room:
        """The same room, to go on from it and perhaps come back."""
        return replace(self, kinds=self.kinds.copy())

    def check(self, event: ContainerEvent, size: int) -> None:
        """Raises ``RecordFull`` if ``event`` does not fit in."""
        kind, launches = type(event), cel.MAX_LOG - RESERVE
        room = launches if isinstance(event, Create | Exec | Deny) else cel.MAX_LOG
        if self.size + size > room or self.count == cel.MAX_RECORDS:
            raise RecordFull("the record is full", expected=f"at most {room} bytes")
        share = launches * SHARES.get(kind, 1)
        if kind in SHARES and self.kinds[kind] + size > share:
            raise RecordFull(
                f"the record has no room for more {kind.__name__.lower()} events",
                expected=f"at most {share:.0f} bytes",
            )

    def take(self, event: ContainerEvent, size: int) -> None:
        """Use ``size`` bytes for ``event``."""
        self.count += 1
        self.size += size
        self.kinds[type(event)] += size


class Commands:
    """What was recorded to run in the containers that run: policy and configuration of each."""

    def __init__(self) -> None:
        self._known: dict[str, set[tuple[str, str]]] = {}

    def note(self, events: Iterable[ContainerEvent]) -> None:
        """Events that are recorded."""
        for event in events:
            match event:
                case Create() | Exit():
                    self._known.pop(event.container, None)
                case Exec():
                    known = self._known.setdefault(event.container, set())
                    known.add((event.policy, event.launch.config))
                case _:
                    pass

    def hold(self, event: ContainerEvent) -> bool:
        """Whether ``event`` is a command that was recorded before."""
        return isinstance(event, Exec) and (event.policy, event.launch.config) in self._known.get(
            event.container, ()
        )
