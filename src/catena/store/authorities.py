"""The certificate authorities of a rotation: which keys issue from when, and which are believed until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from catena.store import schema

_authorities = schema.authorities


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One authority; ``sha256`` is of its certificate's SubjectPublicKeyInfo, ``certificate`` DER."""

    sha256: str
    certificate: bytes
    key: str
    """Where its private key is, as ``ca_key`` of server.toml says it."""
    added_at: datetime
    issues_from: datetime
    trusted_until: datetime | None = None
    dropped_at: datetime | None = None
    """When the log was told that it ended."""


class Authorities:
    """The authorities of one transaction. None of them is ever deleted."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> tuple[Authority, ...]:
        """All, by when they begin to issue; none if there was no rotation."""
        rows = self._connection.execute(
            select(_authorities).order_by(_authorities.c.issues_from, _authorities.c.added_at)
        ).mappings()
        return tuple(Authority(**row) for row in rows)

    def insert(self, authority: Authority) -> None:
        """Add one. A key that is there raises ``Conflict``."""
        values = {name: getattr(authority, name) for name in Authority.__dataclass_fields__}
        self._connection.execute(insert(_authorities), values)

    def drop(self, sha256: str, at: datetime) -> None:
        """Remember that the log was told of an end."""
        change = update(_authorities).where(_authorities.c.sha256 == sha256)
        self._connection.execute(change.values(dropped_at=at))

    def end(self, sha256: str, trusted_until: datetime) -> None:
        """Say until when one is believed."""
        change = update(_authorities).where(_authorities.c.sha256 == sha256)
        self._connection.execute(change.values(trusted_until=trusted_until))
