"""Policies that were applied, one row per version; the highest is in force.

A row counts for nothing by being here: whoever reads one verifies its document again.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from catena.ids import Sha256Hex
from catena.store import schema
from catena.store.errors import OutdatedPolicy

_policies = schema.policies
_NEWEST_FIRST = select(_policies).order_by(_policies.c.version.desc())


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """One applied policy: a DSSE envelope, its SHA-256, and who applied it."""

    version: int
    name: str
    sha256: Sha256Hex
    document: bytes
    applied_at: datetime
    actor: str


class Policies:
    """The applied policies of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(
        self, *, version: int, name: str, document: bytes, at: datetime, actor: str
    ) -> StoredPolicy:
        """Put a policy in force.

        Raises ``OutdatedPolicy`` if one that is as new or newer is in force already, and
        ``Conflict`` if another transaction stores the same version at the same time.
        """
        newest = self.newest()
        if newest is not None and version <= newest.version:
            raise OutdatedPolicy(
                "a newer policy is in force",
                expected=f"a version above {newest.version}",
                got=str(version),
            )
        stored = StoredPolicy(
            version=version,
            name=name,
            sha256=Sha256Hex(hashlib.sha256(document).hexdigest()),
            document=document,
            applied_at=at,
            actor=actor,
        )
        self._connection.execute(insert(_policies), asdict(stored))
        return stored

    def rename(self, actor: str, other: str) -> None:
        """Say of all that ``actor`` applied that ``other`` did."""
        of_them = update(_policies).where(_policies.c.actor == actor)
        self._connection.execute(of_them.values(actor=other))

    def newest(self) -> StoredPolicy | None:
        """The policy in force, or None before the first was applied."""
        row = self._connection.execute(_NEWEST_FIRST.limit(1)).mappings().first()
        return None if row is None else StoredPolicy(**row)

    def list(self) -> tuple[StoredPolicy, ...]:
        """All policies that were ever applied, newest first."""
        rows = self._connection.execute(_NEWEST_FIRST).mappings()
        return tuple(StoredPolicy(**row) for row in rows)
