"""Secrets for machines that prove themselves: put, list, remove, and seal for a node.

Values are encrypted before they reach the database and leave for a node only through
``sealed_for``: wrapped to one TPM in one boot state. Nothing here prints or logs a value. A secret is for the
nodes that have one of its roles, if it names any, and all of its labels, if it names any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from catena.audit.entries import SecretChanged
from catena.errors import NotFound, UsageError
from catena.formats.nodeapi import SealedSecret
from catena.formats.tpm2 import parse_public
from catena.ids import HashAlg
from catena.keys.protect import seal_to_tpm
from catena.service import pages
from catena.service.nodes import rfc3339
from catena.service.pages import Page, PageRequest, SecretKey, page_of
from catena.service.setting import Setting
from catena.service.vault import KeyRing
from catena.service.views import (
    Removed,
    SecretName,
    SecretRequest,
    SecretRotation,
    SecretView,
)
from catena.store.database import Transaction
from catena.store.nodes import Node
from catena.store.secrets import Release, Secret

SEALED_PCRS = (*range(10), *range(11, 15))
"""What a secret is bound to: the boot. Not 10 (IMA) and 15 (containers): they grow at run time."""


class NoSuchSecret(NotFound):
    """A secret that does not exist."""

    code = "no-such-secret"
    remedy = "`catena secret list` shows all secrets."


class BadSecretName(UsageError):
    """A name that cannot be a file name on a node."""

    code = "bad-secret-name"
    remedy = "Use lower-case letters, digits, dots, dashes and underscores."


class NewestVersion(UsageError):
    """The newest version of a secret, to be removed alone."""

    code = "newest-version"
    remedy = "Put a new version first, or remove the whole secret."


class NoAudience(UsageError):
    """A secret that names neither a role nor a label would be for every node."""

    code = "no-audience"
    remedy = "Give --role or --label."


class Secrets:
    """The verbs *put*, *list* and *remove*."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._keys = setting.keys.storage

    def put(self, name: str, request: SecretRequest, actor: str) -> SecretView:
        """Store a new version. Raises ``BadSecretName``, ``NoAudience``, ``KekMissing``, ``KekUnusable``,
        ``KekMoved``.
        """
        _require_name(name)
        if not (request.roles or request.labels):
            raise NoAudience("a secret for every node")
        setting = self._setting
        with setting.journal.deciding(f"secret:{name}"):
            with setting.database.snapshot() as rows:
                version = rows.secrets.next_version(name)
                kek = rows.keks.in_force() or self._keys.first
            nonce, ciphertext = self._keys.vault(kek).lock(
                name, version, request.value, setting.random
            )
            secret = Secret(
                name=name,
                version=version,
                roles=request.roles,
                labels=request.labels,
                kek=kek,
                nonce=nonce,
                ciphertext=ciphertext,
                created_at=setting.now(),
            )
            setting.journal.record(_entry(secret, "put", actor, secret.created_at))
            with setting.journal.effect() as rows:
                rows.keks.hold(kek, at=secret.created_at)
                rows.secrets.put(secret)
        return view_of_secret(secret)

    def page(self, request: PageRequest) -> Page[SecretView]:
        """Some of them. Raises ``BadCursor``."""
        key = pages.decode(request.cursor, SecretKey)
        with self._setting.database.snapshot() as rows:
            found = rows.secrets.page(None if key is None else key.name, request.limit + 1)
        page = page_of(found, request.limit, lambda secret: SecretKey(secret.name))
        return Page(tuple(map(view_of_secret, page.items)), page.cursor)

    def remove(self, name: str, actor: str, version: int | None = None) -> Removed:
        """Wipe every version, or one that is not the newest. Raises ``NoSuchSecret``, ``NewestVersion``."""
        setting, now = self._setting, self._setting.now()
        with setting.journal.deciding(f"secret:{name}"):
            with setting.database.snapshot() as rows:
                secret = _removable(rows.secrets.versions(name), version)
                holders = _holders(rows, name, version)
            setting.journal.record(_entry(secret, "removed", actor, now))
            with setting.journal.effect() as rows:
                rows.secrets.remove(name, at=now, version=version)
        return Removed(name=name, version=version, held_by=holders)

    def rotation(self) -> tuple[SecretRotation, ...]:
        """What has to be rotated: its newest version is held by a node that was revoked since.

        A new version takes a secret off this list.
        """
        with self._setting.database.snapshot() as rows:
            return tuple(_rotation(rows, release) for release in rows.secrets.exposed())

    def sealed_for(
        self, rows: Transaction, node: Node, bank: HashAlg, pcrs: Mapping[int, bytes]
    ) -> tuple[SealedSecret, ...]:
        """The secrets that the node may have, for its TPM while its boot PCRs are these."""
        secrets = _secrets_for(rows, node)
        if not secrets:
            return ()
        ek = parse_public(node.ek_public)
        grows = self._setting.container_pcr
        values = {pcr: pcrs[pcr] for pcr in SEALED_PCRS if pcr != grows}
        return tuple(
            seal_to_tpm(
                ek,
                opened(self._keys, secret),
                name=secret.name,
                version=secret.version,
                bank=bank,
                pcr_values=values,
                random=self._setting.random,
            )
            for secret in secrets
        )


def _removable(versions: tuple[Secret, ...], version: int | None) -> Secret:
    """The version that an entry about the removal names: the newest stands for all."""
    wanted = [one for one in versions if version in (None, one.version)]
    if not wanted:
        raise NoSuchSecret("there is no such secret, or no such version")
    if wanted[0].version == version == versions[0].version:
        raise NewestVersion("nodes would get an older version instead", got=f"{version}")
    return wanted[0]


def _holders(rows: Transaction, name: str, version: int | None) -> tuple[str, ...]:
    """Nodes that have received the version, or any."""
    releases = rows.secrets.holders(name)
    held = {one.node_id for one in releases if version in (None, one.version)}
    return tuple(node.name or node.id for node in rows.nodes.list() if node.id in held)


def opened(keys: KeyRing, secret: Secret) -> bytes:
    """The value. Raises ``KekMissing``, ``KekUnusable`` or ``UnreadableSecret``."""
    vault = keys.vault(secret.kek)
    return vault.unlock(secret.name, secret.version, secret.nonce, secret.ciphertext)


def _secrets_for(rows: Transaction, node: Node) -> tuple[Secret, ...]:
    """The newest version of each secret that is for the node."""
    found = tuple(one for one in rows.secrets.list() if not one.roles or node.role in one.roles)
    if not any(one.labels for one in found):
        return found
    labels = frozenset(rows.node_labels.of(node.id))
    return tuple(one for one in found if labels.issuperset(one.labels))


def _rotation(rows: Transaction, release: Release) -> SecretRotation:
    node = rows.nodes.get(release.node_id)
    return SecretRotation(
        name=release.name,
        version=release.version,
        node=release.node_id,
        node_name=None if node is None else node.name,
        released_at=rfc3339(release.at),
        since=rfc3339(release.revoked_at or release.at),
    )


def _entry(
    secret: Secret, action: Literal["put", "removed"], actor: str, at: datetime
) -> SecretChanged:
    return SecretChanged(
        at=at,
        actor=actor,
        action=action,
        secret=secret.name,
        version=secret.version,
        roles=secret.roles,
        labels=secret.labels,
        ciphertext_sha256=hashlib.sha256(secret.ciphertext).hexdigest(),
    )


def view_of_secret(secret: Secret) -> SecretView:
    """A version as people see it."""
    return SecretView(
        name=secret.name,
        version=secret.version,
        roles=secret.roles,
        labels=secret.labels,
        created_at=rfc3339(secret.created_at),
    )


def _require_name(name: str) -> None:
    try:
        msgspec.convert(name, SecretName)
    except msgspec.ValidationError as error:
        raise BadSecretName("not a name for a secret", got=ascii(name[:80])) from error
