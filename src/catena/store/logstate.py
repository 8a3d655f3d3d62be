"""The newest checkpoint of the audit log, remembered apart from the log's own folder.

Whoever rewinds the folder to an older copy must rewind the database too
(``audit.log.TransparencyLog.open(remembered=…)``).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, update

from catena.store import schema

_state = schema.log_state


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """The newest checkpoint of one log that this database knows."""

    origin: str
    size: int
    checkpoint: str


_ADVANCE = (
    update(_state)
    .where(_state.c.origin == bindparam("log"), _state.c.size <= bindparam("new_size"))
    .values(size=bindparam("new_size"), checkpoint=bindparam("new_checkpoint"))
)
_GET = select(_state).where(_state.c.origin == bindparam("origin"))


class LogStates:
    """The remembered checkpoints of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, origin: str) -> LogState | None:
        """What is remembered of this log."""
        row = self._connection.execute(_GET, {"origin": origin}).mappings().first()
        return None if row is None else LogState(**row)

    def advance(self, state: LogState) -> None:
        """Remember a checkpoint unless a larger one is remembered; never goes back."""
        moved = self._connection.execute(
            _ADVANCE,
            {"log": state.origin, "new_size": state.size, "new_checkpoint": state.checkpoint},
        )
        if moved.rowcount == 0 and self.get(state.origin) is None:
            values = {name: getattr(state, name) for name in LogState.__dataclass_fields__}
            self._connection.execute(insert(_state), values)
