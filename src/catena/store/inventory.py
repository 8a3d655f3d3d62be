"""Machines that are expected: listed before they enrol, by their EK or its certificate's serial."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from catena.ids import NodeId, NodeName
from catena.store import schema

_expected = schema.expected_machines


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedMachine:
    """One machine; either ``ek_sha256`` or both ``ek_issuer`` and ``ek_serial`` say which.

    ``node_id`` is what it enrolled as, None until it does.
    """

    name: NodeName
    role: str
    site: str | None = None
    channel: str | None = None
    ek_sha256: str | None = None
    ek_issuer: str | None = None
    ek_serial: str | None = None
    listed_at: datetime
    node_id: NodeId | None = None


class Expected:
    """The expected machines of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> tuple[ExpectedMachine, ...]:
        """All of them, by name."""
        rows = self._connection.execute(select(_expected).order_by(_expected.c.name)).mappings()
        return tuple(ExpectedMachine(**row) for row in rows)

    def page(self, after: str | None, limit: int, *, awaited: bool) -> tuple[ExpectedMachine, ...]:
        """As ``list``, at most ``limit`` behind this name; ``awaited``: only what did not enrol yet."""
        query = select(_expected).order_by(_expected.c.name).limit(limit)
        if after is not None:
            query = query.where(_expected.c.name > after)
        if awaited:
            query = query.where(_expected.c.node_id.is_(None))
        return tuple(ExpectedMachine(**row) for row in self._connection.execute(query).mappings())

    def get(self, name: str) -> ExpectedMachine | None:
        """The machine with this name."""
        query = select(_expected).where(_expected.c.name == name)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else ExpectedMachine(**row)

    def find(
        self, node_id: NodeId, issuer: str | None, serial: str | None
    ) -> tuple[ExpectedMachine, ...]:
        """What is listed for this EK: by its digest, or by its certificate."""
        by_certificate = and_(_expected.c.ek_issuer == issuer, _expected.c.ek_serial == serial)
        query = select(_expected).where(or_(_expected.c.ek_sha256 == node_id, by_certificate))
        return tuple(ExpectedMachine(**row) for row in self._connection.execute(query).mappings())

    def insert(self, machines: tuple[ExpectedMachine, ...]) -> None:
        """Add some. Raises ``Conflict`` for a name, digest or serial that is listed (on leaving)."""
        if machines:
            self._connection.execute(insert(_expected), [asdict(one) for one in machines])

    def arrived(self, name: NodeName, node_id: NodeId) -> bool:
        """Compare and swap: this machine enrolled; False if another took its line."""
        where = (_expected.c.name == name, _expected.c.node_id.is_(None))
        changed = self._connection.execute(update(_expected).where(*where).values(node_id=node_id))
        return changed.rowcount == 1

    def remove(self, name: NodeName) -> bool:
        """Expect it no longer; False if it was not listed."""
        gone = self._connection.execute(delete(_expected).where(_expected.c.name == name))
        return gone.rowcount == 1
