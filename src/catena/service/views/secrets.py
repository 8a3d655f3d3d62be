"""Secrets: everything but their values, and the one view that has one."""

from __future__ import annotations

from typing import Annotated

import msgspec

from catena.service.views.base import MAX_SECRET, Label, NodeLabel, View


class SecretView(View, frozen=True, kw_only=True):
    """A secret's name, version and audience; never its value."""

    name: str
    version: int
    roles: tuple[str, ...]
    labels: tuple[str, ...]
    created_at: str


class SecretHolder(View, frozen=True, kw_only=True):
    """A node that received a version of a secret; since ``revoked_at`` it is not trusted with it."""

    node: str
    node_name: str | None
    released_at: str
    revoked_at: str | None


class SecretVersion(View, frozen=True, kw_only=True):
    """One version of a secret; ``kek`` is the id of the key it is stored under."""

    version: int
    roles: tuple[str, ...]
    labels: tuple[str, ...]
    created_at: str
    kek: str
    held_by: tuple[SecretHolder, ...]


class SecretDetail(View, frozen=True, kw_only=True):
    """A secret with all its versions, newest first."""

    secret: SecretView
    versions: tuple[SecretVersion, ...]


class SecretReading(View, frozen=True, kw_only=True):
    """Which version somebody wants to read; None: the newest."""

    version: int | None = None


class SecretValue(View, frozen=True, kw_only=True):
    """The value of a secret, for a person who asked for exactly that."""

    name: str
    version: int
    value: bytes

    def __repr__(self) -> str:
        return f"SecretValue({self.name!r}, {self.version})"


class RekeyRequest(View, frozen=True, kw_only=True):
    """The storage key that all secrets shall be under, by its id."""

    kek: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]


class RekeyView(View, frozen=True, kw_only=True):
    """How far it is: ``remaining`` versions are under other keys. Nothing is under those that ``ended``."""

    kek: str
    rekeyed: int
    remaining: int
    ended: tuple[str, ...]


class SecretRotation(View, frozen=True, kw_only=True):
    """A secret that needs a new version, for a node that holds this one was revoked."""

    name: str
    version: int
    node: str
    node_name: str | None
    released_at: str
    since: str
    """When the node was revoked."""


class SecretRequest(View, frozen=True, kw_only=True):
    """A new version of a secret, for nodes with one of the roles and with all of the labels."""

    roles: Annotated[tuple[Label, ...], msgspec.Meta(max_length=32)] = ()
    labels: Annotated[tuple[NodeLabel, ...], msgspec.Meta(max_length=32)] = ()
    value: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_SECRET)]


class RemovalRequest(View, frozen=True, kw_only=True):
    """Which version of a secret to remove; None: all of them."""

    version: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Removed(View, frozen=True, kw_only=True):
    """A secret that is gone, or one version of it, and the nodes that have held it."""

    name: str
    version: int | None = None
    held_by: tuple[str, ...]
