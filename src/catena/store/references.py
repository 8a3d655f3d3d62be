"""Accepted reference documents: releases, key sets, firmware captures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from catena.ids import Sha256Hex
from catena.store import schema
from catena.store.errors import NoSuchRow
from catena.store.keyset import behind

_references = schema.references


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReference:
    """One accepted document (a DSSE envelope, or a capture approved by a person)."""

    name: str
    kind: str
    version: str
    sha256: Sha256Hex
    document: bytes
    accepted_at: datetime
    active: bool = True


class References:
    """The reference documents of one transaction, by SHA-256 of the document."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(
        self, *, name: str, kind: str, version: str, document: bytes, at: datetime
    ) -> StoredReference:
        """Store a document and make it active; one already stored becomes active again."""
        sha256 = Sha256Hex(hashlib.sha256(document).hexdigest())
        known = self.get(sha256)
        if known is not None:
            self.set_active(sha256, active=True)
            return replace(known, active=True)
        stored = StoredReference(
            name=name, kind=kind, version=version, sha256=sha256, document=document, accepted_at=at
        )
        values = {field: getattr(stored, field) for field in StoredReference.__dataclass_fields__}
        self._connection.execute(insert(_references), values)
        return stored

    def get(self, sha256: Sha256Hex) -> StoredReference | None:
        """The document with this digest."""
        query = select(_references).where(_references.c.sha256 == sha256)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else StoredReference(**row)

    def list(self, *, active_only: bool = False) -> tuple[StoredReference, ...]:
        """Documents in the order of their acceptance."""
        query = select(_references).order_by(_references.c.accepted_at, _references.c.sha256)
        if active_only:
            query = query.where(_references.c.active)
        return tuple(StoredReference(**row) for row in self._connection.execute(query).mappings())

    def page(self, after: tuple[datetime, str] | None, limit: int) -> tuple[StoredReference, ...]:
        """At most ``limit`` active documents behind the one with this acceptance and digest."""
        query = (
            select(_references)
            .where(_references.c.active)
            .order_by(_references.c.accepted_at, _references.c.sha256)
            .limit(limit)
        )
        if after is not None:
            query = query.where(behind((_references.c.accepted_at, _references.c.sha256), after))
        return tuple(StoredReference(**row) for row in self._connection.execute(query).mappings())

    def set_active(self, sha256: Sha256Hex, *, active: bool) -> None:
        """Let the document count, or not. Raises ``NoSuchRow``."""
        changed = self._connection.execute(
            update(_references).where(_references.c.sha256 == sha256).values(active=active)
        )
        if changed.rowcount != 1:
            raise NoSuchRow("this reference is not in the database")
