"""Rounds of work that one replica of several does at a time."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from catena.store import schema

_rounds = schema.rounds


class Rounds:
    """The rounds of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def renew(self, name: str, before: datetime, now: datetime) -> bool:
        """Compare and swap: True if the round that was taken at ``before`` is the caller's still."""
        mine = (_rounds.c.name == name, _rounds.c.taken_at == before)
        return (
            self._connection.execute(update(_rounds).where(*mine).values(taken_at=now)).rowcount
            == 1
        )

    def take(self, name: str, now: datetime, *, not_after: datetime) -> bool:
        """Compare and swap: True for the one caller that may do this round now.

        A round is due if the last was taken at ``not_after`` or before.
        """
        due = (_rounds.c.name == name, _rounds.c.taken_at <= not_after)
        taken = self._connection.execute(update(_rounds).where(*due).values(taken_at=now))
        if taken.rowcount:
            return True
        if self._connection.execute(select(_rounds).where(_rounds.c.name == name)).first():
            return False
        try:
            with self._connection.begin_nested():
                self._connection.execute(insert(_rounds), {"name": name, "taken_at": now})
        except IntegrityError:  # another replica took the first round
            return False
        return True
