"""A record as people ask for it: each container and each refusal, and why it was so.

"Running" is what the record knows: created and not exited. A container that was created again
without an exit in between did not start, or its end was missed; the earlier one is ``replaced``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from catena.containers.record.replay import RecordedEvent
from catena.formats.containerlog import Create, Deny, Exec, Exit, Launch, PolicyInForce


class State(StrEnum):
    """What became of it."""

    RUNNING = "running"
    EXITED = "exited"
    REPLACED = "replaced"
    REFUSED = "refused"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One container, or one refusal. ``why`` says it in one line; times are the gate's.

    ``launch`` is None for a refusal; ``execs`` are the commands that were run in it, as recorded.
    """

    container: str
    state: State
    why: str
    verb: str
    image: str
    repository: str
    started: datetime
    ended: datetime | None = None
    sandbox: str = ""
    publisher: str = ""
    signature: str = ""
    code: str = ""
    policy: str = ""
    launch_policy: str = ""
    root: str = ""
    launch: Launch | None = None
    execs: tuple[tuple[str, ...], ...] = ()


def rows(events: Iterable[RecordedEvent]) -> tuple[Row, ...]:
    """Containers and refusals, in the order in which they came."""
    listing = _Listing()
    for event in events:
        listing.take(event)
    return listing.rows_with_commands()


class _Listing:
    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._live: dict[str, int] = {}
        """Containers that run, by their place in ``rows``."""
        self._execs: dict[int, list[tuple[str, ...]]] = {}
        self._policies: dict[str, str] = {}

    def take(self, recorded: RecordedEvent) -> None:
        match recorded.event:
            case PolicyInForce() as policy:
                self._policies[policy.policy] = f"{policy.name} {policy.version}"
            case Create() as create:
                self._end(create.container, State.REPLACED, create.at)
                self._live[create.container] = len(self.rows)
                self.rows.append(self._created(create))
            case Exec() as command:
                self._run(command)
            case Exit() as leave:
                self._end(leave.container, State.EXITED, leave.at)
            case Deny() as deny:
                self.rows.append(_refused(deny))
            case _:
                pass

    def rows_with_commands(self) -> tuple[Row, ...]:
        return tuple(
            replace(row, execs=tuple(self._execs[place])) if place in self._execs else row
            for place, row in enumerate(self.rows)
        )

    def _end(self, container: str, state: State, at: datetime) -> None:
        place = self._live.pop(container, None)
        if place is not None:
            self.rows[place] = replace(self.rows[place], state=state, ended=at)

    def _run(self, command: Exec) -> None:
        place = self._live.get(command.container)
        if place is not None:
            self._execs.setdefault(place, []).append(command.launch.argv)

    def _created(self, create: Create) -> Row:
        policy = self._policies.get(create.policy, create.policy[:16])
        launch = "its launch policy" if create.launch_policy else "the default launch policy"
        return Row(
            container=create.container,
            state=State.RUNNING,
            why=f"signed by {create.publisher} ({create.signature}), policy {policy}, {launch}",
            verb="create",
            image=create.image,
            repository=create.repository,
            started=create.at,
            sandbox=create.sandbox,
            publisher=create.publisher,
            signature=create.signature,
            policy=create.policy,
            launch_policy=create.launch_policy,
            root=create.root,
            launch=create.launch,
        )


def _refused(deny: Deny) -> Row:
    return Row(
        container=deny.container,
        state=State.REFUSED,
        why=f"{deny.code}: {deny.message}",
        verb=deny.verb,
        image=deny.image,
        repository=deny.repository,
        started=deny.at,
        code=deny.code,
        policy=deny.policy,
    )
