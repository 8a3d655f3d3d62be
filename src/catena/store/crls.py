"""The newest CRL of each CA, which all replicas serve, and whether it still says all."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from catena.store import schema

_crls = schema.crls


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCrl:
    """A CRL as it was signed. ``issuer`` is the CA's key id, ``der`` empty before the first.

    ``changes`` counts revocations; the list was made of the first ``made_of``.
    """

    issuer: str
    number: int = 0
    changes: int = 0
    made_of: int = 0
    this_update: datetime | None = None
    next_update: datetime | None = None
    der: bytes = field(default=b"", repr=False)


class Crls:
    """The CRLs of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, issuer: str) -> StoredCrl | None:
        """The CA's newest one."""
        query = select(_crls).where(_crls.c.issuer == issuer)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else StoredCrl(**row)

    def begin(self, issuer: str) -> None:
        """A place for the CA's first one. A place that is there raises ``Conflict``."""
        empty = StoredCrl(issuer=issuer)
        values = {name: getattr(empty, name) for name in StoredCrl.__dataclass_fields__}
        self._connection.execute(insert(_crls), values)

    def outdate(self) -> None:
        """Something was revoked: no CRL that is there says all."""
        self._connection.execute(update(_crls).values(changes=_crls.c.changes + 1))

    def replace(self, new: StoredCrl) -> bool:
        """Keep ``new`` behind the number before it; False if another replica made one first.

        What was revoked since ``new`` was made stays counted.
        """
        result = self._connection.execute(
            update(_crls)
            .where(_crls.c.issuer == new.issuer, _crls.c.number == new.number - 1)
            .values(
                number=new.number,
                made_of=new.made_of,
                this_update=new.this_update,
                next_update=new.next_update,
                der=new.der,
            )
        )
        return result.rowcount == 1
