"""Which key encrypts secrets now, and which ones did before; the keys themselves are in files."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from catena.store import schema
from catena.store.errors import KekMoved

_keks = schema.keks


class Keks:
    """The key ids of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def in_force(self) -> str | None:
        """The one that encrypts; None before the first secret."""
        query = select(_keks.c.id).where(_keks.c.in_force)
        found: str | None = self._connection.execute(query).scalar_one_or_none()
        return found

    def before(self) -> tuple[str, ...]:
        """Those that encrypted before, and whose end was not noted yet."""
        query = select(_keks.c.id).where(~_keks.c.in_force).order_by(_keks.c.since)
        return tuple(self._connection.execute(query).scalars())

    def hold(self, kek: str, *, at: datetime) -> None:
        """Keep ``kek`` in force until the transaction ends. Raises ``KekMoved``, ``Conflict``.

        The first one is noted by this.
        """
        if self._change(kek, in_force=True):
            return
        if self.in_force() is not None:
            raise KekMoved("another key encrypts secrets by now")
        self._connection.execute(insert(_keks), {"id": kek, "in_force": True, "since": at})

    def switch(self, old: str, new: str, *, at: datetime) -> None:
        """Put ``new`` in force instead of ``old``. Raises ``KekMoved``, ``Conflict``."""
        self.hold(old, at=at)
        self._change(old, in_force=False)
        self.forget(new)
        self._connection.execute(insert(_keks), {"id": new, "in_force": True, "since": at})

    def forget(self, kek: str) -> None:
        """Nothing is under this one any more."""
        self._connection.execute(delete(_keks).where(_keks.c.id == kek, ~_keks.c.in_force))

    def _change(self, kek: str, *, in_force: bool) -> bool:
        """Whether ``kek`` was in force; its row is locked then."""
        result = self._connection.execute(
            update(_keks).where(_keks.c.id == kek, _keks.c.in_force).values(in_force=in_force)
        )
        return result.rowcount == 1
