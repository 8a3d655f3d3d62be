"""Who a request comes from: the token in its header, held against the stored ones (``service.bearer``)."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from catena.server.faults import ExpiredToken, Forbidden, Unauthenticated
from catena.service.bearer import token_hash
from catena.service.roles import Right, rights_of
from catena.service.tokens import has_ended

_MAX_HEADER = 256


class StoredToken(Protocol):
    """A token as the database keeps it."""

    @property
    def hash(self) -> str:
        """Hex SHA-256 of the token."""

    @property
    def role(self) -> str:
        """The token's role."""

    @property
    def scope(self) -> tuple[str, ...]:
        """The rights that it is narrowed to; empty: all of its role."""

    @property
    def label(self) -> str:
        """Whose token it is; named in the audit log."""

    @property
    def expires_at(self) -> datetime | None:
        """When it ends."""


def authenticate(header: str | None, tokens: Iterable[StoredToken], now: datetime) -> StoredToken:
    """The token that an ``Authorization`` header proves. Raises ``Unauthenticated``, ``ExpiredToken``.

    Every stored hash is compared, each in constant time: how long this takes says nothing
    about which token came close.
    """
    scheme, _, presented = (header or "")[:_MAX_HEADER].partition(" ")
    digest = token_hash(presented.strip())
    found = None
    for token in tokens:
        if hmac.compare_digest(token.hash, digest):
            found = token
    if scheme.lower() != "bearer" or found is None:
        raise Unauthenticated("the admin API needs a valid token")
    if has_ended(found.expires_at, now):
        raise ExpiredToken("this token has ended", got=f"{found.expires_at:%FT%TZ}")
    return found


def require(token: StoredToken, right: Right) -> None:
    """Refuse a token without this right. Raises ``Forbidden``."""
    if right not in rights_of(token.role, token.scope):
        got = f"role {token.role}" + (f", scope {' '.join(token.scope)}" if token.scope else "")
        raise Forbidden("this token may not do that", expected=right, got=got)
