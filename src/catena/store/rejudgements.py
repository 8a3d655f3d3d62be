"""Authorities that changed, and how far the nodes below each were judged again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from catena.store import schema

_rejudgements = schema.rejudgements


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudgement:
    """One changed authority, by the digest of its name; ``title`` is for people.

    ``change`` grows with each change of it; nodes up to ``after`` are judged. ``is_second`` is the pass
    that finds who enrolled while the change was made.
    """

    name: str
    title: str
    change: int
    changed_at: datetime
    is_second: bool
    after: str
    judged: int


class Rejudgements:
    """The open ones of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ask(self, name: str, title: str, at: datetime) -> None:
        """Have all nodes below an authority judged again, from the first one on."""
        fresh = {"title": title, "changed_at": at, "is_second": False, "after": "", "judged": 0}
        again = (
            update(_rejudgements)
            .where(_rejudgements.c.name == name)
            .values(change=_rejudgements.c.change + 1, **fresh)
        )
        if self._connection.execute(again).rowcount:
            return
        try:
            with self._connection.begin_nested():
                self._connection.execute(
                    insert(_rejudgements), {"name": name, "change": 1, **fresh}
                )
        except IntegrityError:  # another replica asked at the same moment
            self._connection.execute(again)

    def next(self, *, second_before: datetime) -> Rejudgement | None:
        """The one that was asked for first; second passes of changes up to ``second_before`` only."""
        due = or_(_rejudgements.c.is_second.is_(False), _rejudgements.c.changed_at <= second_before)
        query = select(_rejudgements).where(due)
        order = (_rejudgements.c.is_second, _rejudgements.c.changed_at, _rejudgements.c.name)
        row = self._connection.execute(query.order_by(*order).limit(1)).mappings().first()
        return None if row is None else Rejudgement(**row)

    def list(self) -> tuple[Rejudgement, ...]:
        """All of them, by the time of the change."""
        query = select(_rejudgements).order_by(_rejudgements.c.changed_at, _rejudgements.c.name)
        return tuple(Rejudgement(**row) for row in self._connection.execute(query).mappings())

    def advance(self, one: Rejudgement, *, after: str, judged: int) -> None:
        """Nodes up to ``after`` are judged, unless the authority changed again meanwhile."""
        self._connection.execute(
            update(_rejudgements)
            .where(_as_read(one))
            .values(after=after, judged=one.judged + judged)
        )

    def finish(self, one: Rejudgement) -> None:
        """The pass is over: the second is to come, or the authority is done with."""
        if one.is_second:
            self._connection.execute(delete(_rejudgements).where(_as_read(one)))
        else:
            self._connection.execute(
                update(_rejudgements)
                .where(_as_read(one))
                .values(is_second=True, after="", judged=0)
            )


def _as_read(one: Rejudgement) -> ColumnElement[bool]:
    return and_(
        _rejudgements.c.name == one.name,
        _rejudgements.c.change == one.change,
        _rejudgements.c.is_second.is_(one.is_second),
        _rejudgements.c.after == one.after,
    )
