"""Logging in: what somebody asks who has no token yet, and who may vouch for people."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from catena.errors import NotFound
from catena.formats.jwk import Jwk
from catena.keys.jose import UnknownSigner, WeakAlgorithm
from catena.keys.signer import ForgedSignature
from catena.server.config import CONFIG_FILE, BadConfig, Config
from catena.server.issuer import IssuerKeys, IssuerUnreachable, is_https
from catena.server.operation import Operation, Parts
from catena.service.login import (
    ForeignAudience,
    ForeignIssuer,
    Issuer,
    Login,
    LoginReplayed,
    NamelessLogin,
    RolelessLogin,
    RoleRule,
    StaleLogin,
    UntimelyLogin,
)
from catena.service.roles import Role
from catena.service.views import LoginOffer, LoginRequest, NewToken
from catena.store.errors import Conflict

SMALL_BODY = 32 * 1024
_RULE = re.compile(r"([^=\s]{1,100})=(.{1,200}) (\S+)")


class NoLogin(NotFound):
    """A server that no OpenID provider vouches to."""

    code = "no-login"
    remedy = "Set `oidc_issuer`, `oidc_client_id` and `oidc_roles` in server.toml, or use a token."


def _people(at: Parts) -> Login:
    if at.people is None:
        raise NoLogin("nobody can log in here")
    return at.people


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        "/v1/login",
        "Where to log in, and the nonce that the ID token must have",
        answer=LoginOffer,
        refuses=(NoLogin,),
        verb=lambda at, _: _people(at).offer(),
    ),
    Operation(
        "POST",
        "/v1/login",
        "A token of the admin API for an ID token of the provider",
        takes=LoginRequest,
        answer=NewToken,
        refuses=(
            NoLogin,
            WeakAlgorithm,
            UnknownSigner,
            ForgedSignature,
            ForeignIssuer,
            ForeignAudience,
            UntimelyLogin,
            StaleLogin,
            LoginReplayed,
            RolelessLogin,
            NamelessLogin,
            IssuerUnreachable,
            Conflict,
        ),
        limit=SMALL_BODY,
        verb=lambda at, call: _people(at).exchange(call.body),
    ),
)


def issuer_of(config: Config, keys: IssuerKeys | None = None) -> Issuer | None:
    """Who may vouch for people, as the settings say. Raises ``BadConfig``."""
    if config.oidc_issuer is None:
        if config.oidc_client_id is not None or config.oidc_roles:
            raise BadConfig(f"{CONFIG_FILE}: `oidc_client_id` and `oidc_roles` need `oidc_issuer`")
        return None
    if not is_https(config.oidc_issuer):
        raise BadConfig(f"{CONFIG_FILE}: `oidc_issuer` is no https address")
    if config.oidc_client_id is None or not config.oidc_roles:
        raise BadConfig(f"{CONFIG_FILE}: `oidc_issuer` needs `oidc_client_id` and `oidc_roles`")
    return Issuer(
        url=config.oidc_issuer,
        client_id=config.oidc_client_id,
        rules=tuple(_rule(number, text) for number, text in enumerate(config.oidc_roles)),
        name_claim=config.oidc_name,
        lifetime=timedelta(seconds=config.oidc_lifetime),
        keys=keys or _no_keys,
    )


def _no_keys(_: str | None) -> tuple[Jwk, ...]:
    return ()


def _rule(number: int, text: str) -> RoleRule:
    match = _RULE.fullmatch(text)
    if match is None or match[3] not in set(map(str, Role)):
        raise BadConfig(
            f"{CONFIG_FILE}: oidc_roles[{number}] is no rule",
            expected="CLAIM=VALUE ROLE",
            got=ascii(text[:120]),
        )
    return RoleRule(match[1], match[2], Role(match[3]))
