"""What lets somebody in: hashes of admin tokens, and certificates issued to nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from catena.ids import NodeId
from catena.store import schema
from catena.store.keyset import behind

_tokens = schema.tokens
_certificates = schema.certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An admin token, known only by its hash."""

    hash: str
    role: str
    label: str
    created_at: datetime
    expires_at: datetime | None = None
    scope: tuple[str, ...] = ()
    """The rights that it is narrowed to; empty: all of its role."""
    last_used: datetime | None = None
    login: str | None = None
    """A digest of the login that it was given for; each login gives one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate issued to a node; ``serial`` is lower-case hex."""

    serial: str
    node_id: NodeId
    issued_at: datetime
    not_after: datetime
    revoked_at: datetime | None = None
    revocation_reason: str | None = None


_TOKEN = select(_tokens).where(_tokens.c.hash == bindparam("hash"))
_INSERT_CERTIFICATE = insert(_certificates)
_VALID = (
    select(_certificates)
    .where(_certificates.c.node_id == bindparam("node_id"))
    .where(_certificates.c.not_after > bindparam("now"))
    .where(_certificates.c.revoked_at.is_(None))
    .order_by(_certificates.c.issued_at)
)


class Tokens:
    """The tokens of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, token: Token) -> None:
        """Add a token. A login that has given one already raises ``Conflict``."""
        values = {name: getattr(token, name) for name in Token.__dataclass_fields__}
        self._connection.execute(insert(_tokens), values)

    def used(self, token_hash: str, now: datetime) -> None:
        """Remember that a token was used."""
        change = update(_tokens).where(_tokens.c.hash == token_hash)
        self._connection.execute(change.values(last_used=now))

    def prune(self, *, before: datetime) -> None:
        """Forget what logins gave that ended before ``before``."""
        ended = _tokens.c.login.is_not(None) & (_tokens.c.expires_at < before)
        self._connection.execute(delete(_tokens).where(ended))

    def get(self, token_hash: str) -> Token | None:
        """The token with this hash."""
        row = self._connection.execute(_TOKEN, {"hash": token_hash}).mappings().first()
        return None if row is None else Token(**row)

    def list(self) -> tuple[Token, ...]:
        """All tokens, oldest first."""
        rows = self._connection.execute(select(_tokens).order_by(_tokens.c.created_at)).mappings()
        return tuple(Token(**row) for row in rows)

    def page(self, after: tuple[datetime, str] | None, limit: int) -> tuple[Token, ...]:
        """As ``list``, at most ``limit`` behind the one with this creation and hash."""
        query = select(_tokens).order_by(_tokens.c.created_at, _tokens.c.hash).limit(limit)
        if after is not None:
            query = query.where(behind((_tokens.c.created_at, _tokens.c.hash), after))
        return tuple(Token(**row) for row in self._connection.execute(query).mappings())

    def remove(self, token_hash: str) -> bool:
        """Forget a token; False if it was not there."""
        gone = self._connection.execute(delete(_tokens).where(_tokens.c.hash == token_hash))
        return gone.rowcount > 0


class Certificates:
    """The issued certificates of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, certificate: Certificate) -> None:
        """Remember one. A serial number already used raises ``Conflict``."""
        values = {name: getattr(certificate, name) for name in Certificate.__dataclass_fields__}
        self._connection.execute(_INSERT_CERTIFICATE, values)

    def insert_all(self, certificates: Sequence[Certificate]) -> None:
        """Remember several. Raises as ``insert``."""
        values = [
            {name: getattr(one, name) for name in Certificate.__dataclass_fields__}
            for one in certificates
        ]
        self._connection.execute(_INSERT_CERTIFICATE, values)

    def valid(self, node_id: NodeId, *, now: datetime) -> tuple[Certificate, ...]:
        """The node's certificates that are neither expired at ``now`` nor revoked, oldest first."""
        rows = self._connection.execute(_VALID, {"node_id": node_id, "now": now}).mappings()
        return tuple(Certificate(**row) for row in rows)

    def revoke(self, node_id: NodeId, *, at: datetime, reason: str) -> int:
        """Mark all valid certificates of the node as revoked; how many."""
        found = self._connection.execute(
            update(_certificates)
            .where(
                _certificates.c.node_id == node_id,
                _certificates.c.not_after > at,
                _certificates.c.revoked_at.is_(None),
            )
            .values(revoked_at=at, revocation_reason=reason)
        )
        return found.rowcount

    def revoked(self, *, since: datetime | None) -> tuple[Certificate, ...]:
        """The revoked certificates that had not expired at ``since``, by serial number."""
        query = (
            select(_certificates)
            .where(_certificates.c.revoked_at.is_not(None))
            .order_by(_certificates.c.serial)
        )
        if since is not None:
            query = query.where(_certificates.c.not_after >= since)
        return tuple(Certificate(**row) for row in self._connection.execute(query).mappings())

    def prune(self, *, before: datetime) -> int:
        """Forget certificates that expired before ``before``; how many went.

        Revoked ones stay until a CRL has told of them once more (``prune_revoked``).
        """
        return self._prune(before, _certificates.c.revoked_at.is_(None))

    def prune_revoked(self, *, before: datetime) -> int:
        """Forget revoked certificates that expired before ``before``; how many went."""
        return self._prune(before, _certificates.c.revoked_at.is_not(None))

    def _prune(self, before: datetime, which: ColumnElement[bool]) -> int:
        gone = self._connection.execute(
            delete(_certificates).where(_certificates.c.not_after < before, which)
        )
        return gone.rowcount
