"""Accepted endorsement documents: roots, intermediates and revocation lists of TPM vendors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from catena.ids import Sha256Hex
from catena.store import schema
from catena.store.errors import NoSuchRow
from catena.store.keyset import behind

_endorsements = schema.endorsements


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEndorsement:
    """One document: a DSSE envelope around a certificate or list, whose SHA-256 is the key."""

    sha256: Sha256Hex
    type: str
    name: str
    document: bytes
    accepted_at: datetime
    actor: str
    active: bool = True


class Endorsements:
    """The endorsement documents of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, document: StoredEndorsement) -> None:
        """Store a document; one of the same certificate or list is replaced."""
        self._connection.execute(
            delete(_endorsements).where(_endorsements.c.sha256 == document.sha256)
        )
        values = {name: getattr(document, name) for name in StoredEndorsement.__dataclass_fields__}
        self._connection.execute(insert(_endorsements), values)

    def rename(self, actor: str, other: str) -> None:
        """Say of all that ``actor`` accepted that ``other`` did."""
        of_them = update(_endorsements).where(_endorsements.c.actor == actor)
        self._connection.execute(of_them.values(actor=other))

    def list(self) -> tuple[StoredEndorsement, ...]:
        """Active documents in the order of their acceptance, of one import by name."""
        query = (
            select(_endorsements)
            .where(_endorsements.c.active)
            .order_by(_endorsements.c.accepted_at, _endorsements.c.name, _endorsements.c.sha256)
        )
        rows = self._connection.execute(query).mappings()
        return tuple(StoredEndorsement(**row) for row in rows)

    def page(
        self,
        after: tuple[datetime, str, str] | None,
        limit: int,
        *,
        without: Iterable[Sha256Hex] = (),
    ) -> tuple[StoredEndorsement, ...]:
        """As ``list``, at most ``limit`` behind the one with this acceptance, name and digest."""
        order = tuple(_endorsements.c[one] for one in ("accepted_at", "name", "sha256"))
        query = (
            select(_endorsements)
            .where(_endorsements.c.active, _endorsements.c.sha256.not_in(list(without)))
            .order_by(*order)
            .limit(limit)
        )
        if after is not None:
            query = query.where(behind(order, after))
        rows = self._connection.execute(query).mappings()
        return tuple(StoredEndorsement(**row) for row in rows)

    def marks(self) -> frozenset[tuple[Sha256Hex, datetime]]:
        """Which documents are active, and since when: what ``list`` has, without the documents."""
        columns = select(_endorsements.c.sha256, _endorsements.c.accepted_at)
        rows = self._connection.execute(columns.where(_endorsements.c.active))
        return frozenset((Sha256Hex(sha256), at) for sha256, at in rows)

    def withdraw(self, sha256: Sha256Hex) -> None:
        """Let a document no longer count. Raises ``NoSuchRow``."""
        changed = self._connection.execute(
            update(_endorsements).where(_endorsements.c.sha256 == sha256).values(active=False)
        )
        if changed.rowcount != 1:
            raise NoSuchRow("this endorsement is not in the database")
