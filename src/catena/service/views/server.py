"""The server itself: who may come in, and where its log goes."""

from __future__ import annotations

from typing import Annotated

import msgspec

from catena.service.roles import Right, Role
from catena.service.views.base import View

TokenLabel = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9._@+-]{0,126}[a-z0-9])?\Z")]
"""Whose token it is, in a path and in the log."""


class TokenRequest(View, frozen=True, kw_only=True):
    """A token to be made. An empty ``scope`` gives all rights of the role."""

    label: TokenLabel
    role: Role
    scope: Annotated[tuple[Right, ...], msgspec.Meta(max_length=32)] = ()
    expires_in: Annotated[int, msgspec.Meta(ge=60, le=2**31)]
    """Seconds."""


class TokenView(View, frozen=True, kw_only=True):
    """A token, never its value; times are RFC 3339 in UTC."""

    id: str
    """The first digits of its hash, as the log has it."""
    label: str
    role: str
    scope: tuple[str, ...]
    login: bool
    """Whether somebody got it by logging in."""
    created_at: str
    expires_at: str | None
    expired: bool
    last_used: str | None
    """To within an hour."""


class NewToken(View, frozen=True, kw_only=True):
    """A token that was just made: ``token`` is shown here and never again."""

    token: str
    view: TokenView


class LoginOffer(View, frozen=True, kw_only=True):
    """Where to log in: the provider, the client's id there, and the nonce that the ID token must have."""

    issuer: str
    client_id: str
    nonce: str


class LoginRequest(View, frozen=True, kw_only=True):
    """An ID token of that provider."""

    id_token: Annotated[str, msgspec.Meta(max_length=16_384)]


class Forgotten(View, frozen=True, kw_only=True):
    """A person whose name is deleted."""

    pseudonym: str


class WitnessReport(View, frozen=True, kw_only=True):
    """One witness of the log: the size it cosigned last here, and why not more."""

    name: str
    url: str
    size: int = 0
    code: str | None = None
    problem: str | None = None


class ExportReport(View, frozen=True, kw_only=True):
    """One receiver of the log's entries: how many it has, of how many, and why not more."""

    target: str
    exported: int = 0
    log_size: int = 0
    code: str | None = None
    problem: str | None = None


class ExportsReport(View, frozen=True, kw_only=True):
    """All receivers of the log's entries."""

    exports: tuple[ExportReport, ...] = ()


class CosigningReport(View, frozen=True, kw_only=True):
    """How far cosignatures lag: ``log_size`` was asked for last, ``cosigned_size`` has a quorum.

    From ``cosigned_at`` on (RFC 3339, UTC, by their own clocks) at least a quorum had seen it.
    """

    quorum: int
    log_size: int
    cosigned_size: int | None
    cosigned_at: str | None
    witnesses: tuple[WitnessReport, ...]
