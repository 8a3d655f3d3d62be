"""Bearer tokens of the admin API: 256 random bits, kept only as a hash, with a role and a scope.

A token has full entropy, so one SHA-256 is enough; there is nothing to guess. It looks like
``catena_`` followed by 43 characters, so that secret scanners can find a leaked one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Protocol

from catena.server.faults import Forbidden, Unauthenticated
from catena.service.roles import Right, rights_of

PREFIX = "catena_"
TOKEN_BYTES = 32
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
    def label(self) -> str:
        """Whose token it is; named in the audit log."""


def new_token(random: Callable[[int], bytes]) -> str:
    """A fresh token; show it once."""
    text = base64.urlsafe_b64encode(random(TOKEN_BYTES)).decode().rstrip("=")
    return f"{PREFIX}{text}"


def token_hash(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def authenticate(header: str | None, tokens: Iterable[StoredToken]) -> StoredToken:
    """The token that an ``Authorization`` header proves. Raises ``Unauthenticated``.

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
    return found


def require(token: StoredToken, right: Right) -> None:
    """Refuse a token without this right. Raises ``Forbidden``."""
    if right not in rights_of(token.role):
        raise Forbidden("this token may not do that", expected=right, got=f"role {token.role}")
