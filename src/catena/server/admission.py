"""Who may ask: the one place where an admin's token is held against the stored ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from catena.server.tokens import StoredToken, authenticate, require
from catena.service.roles import Right
from catena.service.uses import Purpose, TokenUses
from catena.store.database import Database


@dataclass(frozen=True, slots=True)
class Admission:
    """Lets a request through if its token is stored and has the right."""

    database: Database
    uses: TokenUses
    purpose: Purpose
    now: Callable[[], datetime]

    def admit(self, header: str | None, right: Right) -> StoredToken:
        """The token of an ``Authorization`` header, whose use is noted in the log.

        Raises ``Unauthenticated``, ``ExpiredToken``, ``Forbidden``, ``LogUnwritable``.
        """
        with self.database.snapshot() as rows:
            tokens = rows.tokens.list()
        token = authenticate(header, tokens, self.now())
        require(token, right)
        self.uses.note(self.purpose, token.label, token.role, token.hash)
        return token
