"""Who a pseudonym of the audit log stands for: the value and the salt that the log does not have."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from sqlalchemy import Connection, delete, insert, select

from catena.store import schema

_people = schema.people


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPerson:
    """One person, as an admin token names them."""

    pseudonym: str
    salt: bytes = field(repr=False)
    name: str


class People:
    """The people of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, person: StoredPerson) -> None:
        """Add somebody. Raises ``Conflict`` for a name that is there already."""
        self._connection.execute(insert(_people), asdict(person))

    def named(self, name: str) -> StoredPerson | None:
        """The person of this name."""
        row = self._connection.execute(select(_people).where(_people.c.name == name)).mappings()
        found = row.first()
        return None if found is None else StoredPerson(**found)

    def get(self, pseudonym: str) -> StoredPerson | None:
        """The person behind a pseudonym, unless forgotten."""
        where = select(_people).where(_people.c.pseudonym == pseudonym)
        found = self._connection.execute(where).mappings().first()
        return None if found is None else StoredPerson(**found)

    def page(self, after: str, limit: int) -> tuple[StoredPerson, ...]:
        """Those whose names come behind ``after``, at most ``limit``."""
        query = select(_people).where(_people.c.name > after).order_by(_people.c.name).limit(limit)
        rows = self._connection.execute(query).mappings()
        return tuple(StoredPerson(**row) for row in rows)

    def remove(self, pseudonym: str) -> bool:
        """Forget name and salt; False if they were not there."""
        gone = self._connection.execute(delete(_people).where(_people.c.pseudonym == pseudonym))
        return gone.rowcount > 0
