"""Logging in with an ID token of an OpenID provider (OpenID Connect Core 1.0, section 3.1.3.7).

The server says once who may vouch (``Issuer``); a token never says by whom it is to be believed. In this order:

1. the token is well-formed and its signature is by a key of the issuer;
2. ``iss`` is the issuer, ``aud`` the client, ``azp`` too if there are several audiences;
3. ``exp``, ``nbf`` and ``iat`` fit the time;
4. ``nonce`` is one that this server made, not long ago, and that nobody logged in with;
5. a rule gives the person a role, and a claim their name.

Only then is a token of that role made: it ends soon, and is in the log before it counts.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from catena.audit.entries import AdminSignIn
from catena.errors import FormatError, Refusal
from catena.formats import jwt
from catena.formats.jwk import Jwk
from catena.formats.jws import decode_base64url, encode_base64url
from catena.formats.jwt import Claims, Jwt
from catena.keys import jose
from catena.service.bearer import new_token, token_hash
from catena.service.roles import Role
from catena.service.setting import Setting
from catena.service.tokens import KEPT_SESSIONS, entry_of, view_of
from catena.service.views import LoginOffer, LoginRequest, NewToken
from catena.store.credentials import Token
from catena.store.errors import Conflict

NONCE_LIFETIME = timedelta(minutes=10)
SKEW = timedelta(minutes=1)
"""By how much the issuer's clock may differ."""
_RANDOM, _TIME, _MAC = 16, 8, 32
_NAME = re.compile(r"[!-~]{1,120}")
LABEL_PREFIX = "oidc:"


class ForeignIssuer(Refusal):
    """A token of another issuer than the one that may vouch."""

    code = "login-issuer"
    remedy = "Log in at the issuer that `oidc_issuer` names."


class ForeignAudience(Refusal):
    """A token that was made for another application."""

    code = "login-audience"
    remedy = "Log in with `catena login`; a token of another application is worth nothing here."


class UntimelyLogin(Refusal):
    """A token that has ended, or has not begun."""

    code = "login-untimely"
    remedy = "Log in again; if it stays so, set the clocks of this server and of the issuer."


class StaleLogin(Refusal):
    """A token with a nonce that this server did not make, or made too long ago."""

    code = "login-stale"
    remedy = "Log in again, within ten minutes."


class LoginReplayed(Conflict):
    """A token that somebody logged in with already."""

    code = "login-replayed"
    remedy = "Log in again. If it was not you who used it, find the sign-in in the log."


class RolelessLogin(Refusal):
    """A person to whom no rule gives a role."""

    code = "login-without-role"
    remedy = "Ask an admin to add a rule to `oidc_roles`, or the issuer's to put you into a group."


class NamelessLogin(Refusal):
    """A person whose token does not say who it is in the claim that names people."""

    code = "login-nameless"
    remedy = (
        "Let the issuer send the claim that `oidc_name` names; of `email` also `email_verified`."
    )


@dataclass(frozen=True, slots=True)
class RoleRule:
    """Whoever has ``value`` in ``claim`` gets ``role``."""

    claim: str
    value: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who may vouch for people, and as what. The first rule that fits counts."""

    url: str
    client_id: str
    rules: tuple[RoleRule, ...]
    name_claim: str
    lifetime: timedelta
    keys: Callable[[str | None], Iterable[Jwk]]
    """The issuer's keys, fetched anew if none has this key id."""


class Login:
    """The verbs *offer* and *exchange*."""

    def __init__(self, setting: Setting, issuer: Issuer) -> None:
        self._setting = setting
        self._issuer = issuer
        self._key = setting.keys.derived(b"catena/login/v1")

    def offer(self) -> LoginOffer:
        """Where to log in, as which client, and with which nonce."""
        return LoginOffer(
            issuer=self._issuer.url, client_id=self._issuer.client_id, nonce=self._nonce()
        )

    def exchange(self, request: LoginRequest) -> NewToken:
        """A token of the admin API for an ID token; the module's steps, in their order."""
        issuer, now = self._issuer, self._setting.now()
        token = jwt.parse(request.id_token)  # 1.
        if token.claims.iss != issuer.url:  # 2., before anything is fetched for it
            raise ForeignIssuer(
                "the token is of another issuer", expected=issuer.url, got=_shown(token.claims.iss)
            )
        jose.verify(token, issuer.keys(token.header.kid))
        check_audience(token.claims, issuer.client_id)
        check_times(token.claims, now)  # 3.
        nonce = self._fresh(token.claims.nonce, now)  # 4.
        role, label = role_of(token, issuer.rules), name_of(token, issuer.name_claim)  # 5.
        return self._signed_in(role, label, nonce, now)

    def _signed_in(self, role: Role, label: str, nonce: str, now: datetime) -> NewToken:
        secret = new_token(self._setting.random)
        token = Token(
            hash=token_hash(secret),
            role=role,
            label=label,
            created_at=now,
            expires_at=now + self._issuer.lifetime,
            last_used=now,
            login=nonce,
        )
        with self._setting.journal.deciding(f"login:{nonce}"):
            with self._setting.database.snapshot() as rows:
                if any(one.login == nonce for one in rows.tokens.list()):
                    raise LoginReplayed("somebody logged in with this token already")
            self._setting.journal.record(
                entry_of(token, "created", label, now),
                AdminSignIn(at=now, actor=label, label=label, role=role, token_sha256=token.hash),
            )
            with self._setting.journal.effect() as rows:
                rows.tokens.prune(before=now - KEPT_SESSIONS)
                rows.tokens.insert(token)  # of two replicas one has a Conflict
        return NewToken(token=secret, view=view_of(token, now))

    def _nonce(self) -> str:
        """Self-verifying, as those of nodes are: any replica can check it."""
        until = int((self._setting.now() + NONCE_LIFETIME).timestamp())
        body = until.to_bytes(_TIME) + self._setting.random(_RANDOM)
        return encode_base64url(body + self._mac(body))

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")

    def _fresh(self, nonce: str | None, now: datetime) -> str:
        """A digest of the nonce, if it is ours and of late. Raises ``StaleLogin``."""
        try:
            content = decode_base64url(nonce or "")
        except FormatError:
            content = b""
        body, mac = content[: _TIME + _RANDOM], content[_TIME + _RANDOM :]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise StaleLogin("the token has no nonce of this server")
        if int.from_bytes(body[:_TIME]) < now.timestamp():
            raise StaleLogin("the login took too long")
        return hashlib.sha256(content).hexdigest()


def check_audience(claims: Claims, client_id: str) -> None:
    """Core 3.1.3.7, steps 3 to 5. Raises ``ForeignAudience``."""
    if client_id not in claims.audiences:
        raise ForeignAudience(
            "the token is for another application",
            expected=client_id,
            got=_shown(" ".join(claims.audiences)),
        )
    if claims.azp != client_id and (claims.azp is not None or len(claims.audiences) > 1):
        raise ForeignAudience(
            "the token was given to another application", expected=client_id, got=_shown(claims.azp)
        )


def check_times(claims: Claims, now: datetime) -> None:
    """Core 3.1.3.7, steps 9 and 10; RFC 7519, 4.1.5. Raises ``UntimelyLogin``."""
    at, skew = now.timestamp(), SKEW.total_seconds()
    if claims.exp is None or claims.iat is None:
        raise UntimelyLogin("the token does not say how long it counts")
    if claims.exp + skew <= at:
        raise UntimelyLogin("the token has ended")
    if claims.iat - skew > at or (claims.nbf is not None and claims.nbf - skew > at):
        raise UntimelyLogin("the token does not count yet")


def role_of(token: Jwt, rules: Iterable[RoleRule]) -> Role:
    """The role that the first fitting rule gives. Raises ``RolelessLogin``."""
    for rule in rules:
        if rule.value in token.words(rule.claim):
            return rule.role
    raise RolelessLogin("no rule gives this person a role")


def name_of(token: Jwt, claim: str) -> str:
    """What the person is called in lists and in the log. Raises ``NamelessLogin``."""
    words = token.words(claim)
    if len(words) != 1 or not _NAME.fullmatch(words[0]):
        raise NamelessLogin(f"the token has no usable claim `{claim}`")
    if claim == "email" and not token.says("email_verified"):
        raise NamelessLogin("the issuer has not verified this address")
    return LABEL_PREFIX + words[0]


def _shown(text: str | None) -> str:
    return ascii((text or "")[:120])
