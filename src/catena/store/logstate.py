"""The newest checkpoint of the audit log, remembered apart from the log's own folder.

Whoever rewinds the folder to an older copy must rewind the database too
(``audit.log.TransparencyLog.open(remembered=…)``).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, text, update

from catena.store import schema

_state = schema.log_state


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """The newest checkpoint of one log that this database knows."""

    origin: str
    size: int
    checkpoint: str
    successor: str | None = None
    """The log that goes on for this one: nothing more is appended here."""


_ADVANCE = (
    update(_state)
    .where(_state.c.origin == bindparam("log"), _state.c.size <= bindparam("new_size"))
    .values(size=bindparam("new_size"), checkpoint=bindparam("new_checkpoint"))
)
_MOVE = (
    update(_state)
    .where(
        _state.c.origin == bindparam("log"),
        _state.c.size == bindparam("old_size"),
        _state.c.checkpoint == bindparam("old_checkpoint"),
    )
    .values(size=bindparam("new_size"), checkpoint=bindparam("new_checkpoint"))
)
_LOCK = select(_state).where(_state.c.origin == bindparam("origin")).with_for_update()
# Who waits too long is told so, and who stops in the middle loses the lock. A commit is on
# disk when it returns, whatever the database does for others.
_BOUND = text(
    "SELECT set_config('lock_timeout', :wait, true),"
    " set_config('idle_in_transaction_session_timeout', :wait, true),"
    " CASE WHEN current_setting('synchronous_commit') = 'off'"
    " THEN set_config('synchronous_commit', 'on', true) END"
)
TURN_SECONDS = 10
"""How long one transaction may keep others from a log's state on PostgreSQL."""
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
            self.insert(state)

    def insert(self, state: LogState) -> None:
        """The first state of a log. Raises ``Conflict`` if it has one."""
        values = {name: getattr(state, name) for name in LogState.__dataclass_fields__}
        self._connection.execute(insert(_state), values)

    def end(self, origin: str, successor: str) -> None:
        """Say which log goes on for this one; no entry follows but its last."""
        of_log = update(_state).where(_state.c.origin == origin)
        self._connection.execute(of_log.values(successor=successor))

    def lock(self, origin: str) -> LogState | None:
        """The state, which nobody else can lock or move before this transaction ends.

        A SQLite transaction that writes is alone anyway.
        """
        if self._connection.dialect.name == "postgresql":
            self._connection.execute(_BOUND, {"wait": f"{TURN_SECONDS}s"})
        row = self._connection.execute(_LOCK, {"origin": origin}).mappings().first()
        return None if row is None else LogState(**row)

    def move(self, old: LogState, new: LogState) -> bool:
        """Compare and swap; False if the state is not ``old``."""
        moved = self._connection.execute(
            _MOVE,
            {
                "log": old.origin,
                "old_size": old.size,
                "old_checkpoint": old.checkpoint,
                "new_size": new.size,
                "new_checkpoint": new.checkpoint,
            },
        )
        return moved.rowcount == 1
