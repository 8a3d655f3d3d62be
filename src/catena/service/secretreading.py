"""Looking at a secret: its versions and who holds them; and its value, for whoever asks expressly."""

from __future__ import annotations

import hashlib

from catena.audit.entries import SecretRead
from catena.service.nodes import rfc3339
from catena.service.secrets import NoSuchSecret, opened, view_of_secret
from catena.service.setting import Setting
from catena.service.views import (
    SecretDetail,
    SecretHolder,
    SecretReading,
    SecretValue,
    SecretVersion,
)
from catena.store.database import Transaction
from catena.store.secrets import Release, Secret


class SecretReader:
    """The verbs *show* and *read*."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def show(self, name: str) -> SecretDetail:
        """Every version and its holders, without values. Raises ``NoSuchSecret``."""
        with self._setting.database.snapshot() as rows:
            versions = rows.secrets.versions(name)
            if not versions:
                raise NoSuchSecret("there is no such secret")
            releases = rows.secrets.holders(name)
            told = tuple(_version(rows, version, releases) for version in versions)
        return SecretDetail(secret=view_of_secret(versions[0]), versions=told)

    def read(self, name: str, request: SecretReading, actor: str) -> SecretValue:
        """The value of one version, else of the newest. That it was read is in the log before.

        Raises ``NoSuchSecret``, ``KekMissing``, ``KekUnusable``, ``UnreadableSecret``,
        ``LogUnwritable``.
        """
        setting = self._setting
        with setting.database.snapshot() as rows:
            versions = rows.secrets.versions(name)
        wanted = [one for one in versions if request.version in (None, one.version)]
        if not wanted:
            raise NoSuchSecret("there is no such secret, or no such version")
        secret = wanted[0]
        value = opened(setting.keys.storage, secret)
        setting.journal.record(
            SecretRead(
                at=setting.now(),
                actor=actor,
                secret=name,
                version=secret.version,
                ciphertext_sha256=hashlib.sha256(secret.ciphertext).hexdigest(),
            )
        )
        return SecretValue(name=name, version=secret.version, value=value)


def _version(rows: Transaction, secret: Secret, releases: tuple[Release, ...]) -> SecretVersion:
    return SecretVersion(
        version=secret.version,
        roles=secret.roles,
        labels=secret.labels,
        created_at=rfc3339(secret.created_at),
        kek=secret.kek,
        held_by=tuple(_holder(rows, one) for one in releases if one.version == secret.version),
    )


def _holder(rows: Transaction, release: Release) -> SecretHolder:
    node = rows.nodes.get(release.node_id)
    return SecretHolder(
        node=release.node_id,
        node_name=None if node is None else node.name,
        released_at=rfc3339(release.at),
        revoked_at=None if release.revoked_at is None else rfc3339(release.revoked_at),
    )
