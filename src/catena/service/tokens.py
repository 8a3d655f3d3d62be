"""Tokens of the admin API: who may come in, for how long, and what for.

A token is made once and shown once; the database has its hash, role, scope and end. Every token that is
made here ends. Only a role with the right ``tokens:write`` gets so far, and that right is in no scope, so
nobody makes a token that may do more than its maker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from catena.audit.entries import AdminToken
from catena.errors import NotFound, Refusal, UsageError
from catena.service import pages
from catena.service.bearer import new_token, token_hash
from catena.service.nodes import rfc3339
from catena.service.pages import Page, PageRequest, TokenKey, page_of
from catena.service.pseudonyms import require_free
from catena.service.roles import RIGHTS, Right, Role, rights_of
from catena.service.setting import Setting
from catena.service.views import NewToken, TokenRequest, TokenView
from catena.store.credentials import Token
from catena.store.database import Transaction
from catena.store.errors import Conflict

ID_DIGITS = 16
_SHORTEST_ID = 8
KEPT_SESSIONS = timedelta(days=7)
"""How long a login that has ended stays in the list."""


class LabelTaken(Conflict):
    """Two tokens that would be told apart by nothing."""

    code = "label-taken"
    remedy = "Choose another label, or remove the token that has it."


class TokenTooLong(UsageError):
    """A token that would live longer than the server allows."""

    code = "token-too-long"
    remedy = "Ask for less, or raise `token_max_days` in server.toml."


class UselessScope(UsageError):
    """A scope with a right that the role does not have, or that no scope may have."""

    code = "useless-scope"
    remedy = "Name rights of the role; the manual's table of roles says which. `tokens:write` is in no scope."


class UnknownToken(NotFound):
    """No token has this label or id."""

    code = "unknown-token"
    remedy = "`catena token list` shows labels and ids."


class LastAdmin(Refusal):
    """Nobody could make tokens any more."""

    code = "last-admin"
    remedy = "Make another token of the role `admin` first."


@dataclass(frozen=True, slots=True)
class Tokens:
    """The verbs *page*, *create* and *remove*."""

    setting: Setting
    longest: timedelta

    def page(self, request: PageRequest) -> Page[TokenView]:
        """Some tokens, oldest first; none is shown. Raises ``BadCursor``."""
        now, key = self.setting.now(), pages.decode(request.cursor, TokenKey)
        after = None if key is None else (key.at, key.hash)
        with self.setting.database.snapshot() as rows:
            found = rows.tokens.page(after, request.limit + 1)
        page = page_of(found, request.limit, lambda one: TokenKey(one.created_at, one.hash))
        return Page(tuple(view_of(one, now) for one in page.items), page.cursor)

    def create(self, request: TokenRequest, actor: str) -> NewToken:
        """Make a token.

        Raises ``ReservedName``, ``LabelTaken``, ``TokenTooLong`` or ``UselessScope``.
        """
        require_free(request.label)
        now, lifetime = self.setting.now(), timedelta(seconds=request.expires_in)
        if lifetime > self.longest:
            raise TokenTooLong(
                "a token may not live so long",
                expected=f"at most {self.longest.days} days",
                got=f"{request.expires_in} s",
            )
        _check_scope(request.role, request.scope)
        secret = new_token(self.setting.random)
        token = Token(
            hash=token_hash(secret),
            role=request.role,
            label=request.label,
            created_at=now,
            expires_at=now + lifetime,
            scope=tuple(sorted(set(request.scope))),
        )
        with self.setting.journal.deciding(f"token:{token.label}"):
            with self.setting.database.snapshot() as rows:
                if any(one.label == token.label for one in valid(rows, now)):
                    raise LabelTaken("a token with this label exists", got=token.label)
            self.setting.journal.record(entry_of(token, "created", actor, now))
            with self.setting.journal.effect() as rows:
                rows.tokens.insert(token)
        return NewToken(token=secret, view=view_of(token, now))

    def remove(self, name: str, actor: str) -> tuple[TokenView, ...]:
        """Withdraw all tokens with this label, or the one with this id, at once.

        Raises ``UnknownToken`` or ``LastAdmin``.
        """
        now = self.setting.now()
        with self.setting.journal.deciding("tokens"):
            with self.setting.database.snapshot() as rows:
                gone = _named(rows.tokens.list(), name)
                _require_admin(valid(rows, now), gone)
            self.setting.journal.record(*(entry_of(one, "removed", actor, now) for one in gone))
            with self.setting.journal.effect() as rows:
                for one in gone:
                    rows.tokens.remove(one.hash)
        return tuple(view_of(one, now) for one in gone)


def entry_of(token: Token, action: str, actor: str, now: datetime) -> AdminToken:
    """What the log has of a token that was made or withdrawn."""
    return AdminToken(
        at=now,
        actor=actor,
        action="created" if action == "created" else "removed",
        label=token.label,
        role=token.role,
        token_sha256=token.hash,
        scope=token.scope,
        expires=token.expires_at,
    )


def view_of(token: Token, now: datetime) -> TokenView:
    """A token as people see it."""
    return TokenView(
        id=token.hash[:ID_DIGITS],
        label=token.label,
        role=token.role,
        scope=token.scope,
        login=token.login is not None,
        created_at=rfc3339(token.created_at),
        expires_at=None if token.expires_at is None else rfc3339(token.expires_at),
        expired=has_ended(token.expires_at, now),
        last_used=None if token.last_used is None else rfc3339(token.last_used),
    )


def has_ended(expires_at: datetime | None, now: datetime) -> bool:
    """Whether a token no longer counts."""
    return expires_at is not None and expires_at <= now


def valid(rows: Transaction, now: datetime) -> tuple[Token, ...]:
    """The tokens that count now."""
    return tuple(one for one in rows.tokens.list() if not has_ended(one.expires_at, now))


def _check_scope(role: Role, scope: Iterable[Right]) -> None:
    useless = sorted(set(scope) - (RIGHTS[role] - {Right.TOKENS_WRITE}))
    if useless:
        raise UselessScope(f"a token of the role {role} cannot have this scope", got=useless[0])


def _named(tokens: Iterable[Token], name: str) -> tuple[Token, ...]:
    every = tuple(tokens)
    found = tuple(one for one in every if one.label == name)
    if not found and len(name) >= _SHORTEST_ID:
        found = tuple(one for one in every if one.hash.startswith(name))
    if not found:
        raise UnknownToken("no such token", got=ascii(name[:80]))
    return found


def _require_admin(tokens: Iterable[Token], gone: Iterable[Token]) -> None:
    """Raises ``LastAdmin`` if nobody is left who may make tokens, though somebody is now."""
    hashes = {one.hash for one in gone}
    able = {one.hash for one in tokens if Right.TOKENS_WRITE in rights_of(one.role, one.scope)}
    if able and able <= hashes:
        raise LastAdmin("this is the last token that may make others")
