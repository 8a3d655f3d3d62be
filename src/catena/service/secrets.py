"""Secrets for machines that prove themselves: put, list, remove, and seal for a node.

Values are encrypted before they reach the database and leave only through ``sealed_for``:
wrapped to one TPM in one boot state. Nothing here prints or logs a value.
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
from catena.service.vault import Vault
from catena.service.views import Removed, SecretName, SecretRequest, SecretView
from catena.store.database import Transaction
from catena.store.nodes import Node
from catena.store.secrets import Secret

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


class Secrets:
    """The verbs *put*, *list* and *remove*."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._vault = Vault(setting.keys.storage)

    def put(self, name: str, request: SecretRequest, actor: str) -> SecretView:
        """Store a new version. Raises ``BadSecretName``."""
        _require_name(name)
        setting = self._setting
        with setting.journal.deciding(f"secret:{name}"):
            with setting.database.snapshot() as rows:
                version = rows.secrets.next_version(name)
            nonce, ciphertext = self._vault.lock(name, version, request.value, setting.random)
            secret = Secret(
                name=name,
                version=version,
                roles=request.roles,
                nonce=nonce,
                ciphertext=ciphertext,
                created_at=setting.now(),
            )
            setting.journal.record(_entry(secret, "put", actor, secret.created_at))
            with setting.journal.effect() as rows:
                rows.secrets.put(secret)
        return _view(secret)

    def list(self) -> tuple[SecretView, ...]:
        """Names, versions and audiences."""
        with self._setting.database.snapshot() as rows:
            return tuple(_view(secret) for secret in rows.secrets.list())

    def page(self, request: PageRequest) -> Page[SecretView]:
        """Some of them. Raises ``BadCursor``."""
        key = pages.decode(request.cursor, SecretKey)
        with self._setting.database.snapshot() as rows:
            found = rows.secrets.page(None if key is None else key.name, request.limit + 1)
        page = page_of(found, request.limit, lambda secret: SecretKey(secret.name))
        return Page(tuple(map(_view, page.items)), page.cursor)

    def remove(self, name: str, actor: str) -> Removed:
        """Wipe every version. Raises ``NoSuchSecret``."""
        setting, now = self._setting, self._setting.now()
        with setting.journal.deciding(f"secret:{name}"):
            with setting.database.snapshot() as rows:
                secret = rows.secrets.latest(name)
                holders = () if secret is None else _holders(rows, name)
            if secret is None:
                raise NoSuchSecret("there is no such secret")
            setting.journal.record(_entry(secret, "removed", actor, now))
            with setting.journal.effect() as rows:
                rows.secrets.remove(name, at=now)
        return Removed(name=name, held_by=holders)

    def sealed_for(
        self, rows: Transaction, node: Node, bank: HashAlg, pcrs: Mapping[int, bytes]
    ) -> tuple[SealedSecret, ...]:
        """The secrets of the node's role, for its TPM while its boot PCRs are these."""
        secrets = () if node.role is None else rows.secrets.for_role(node.role)
        if not secrets:
            return ()
        ek = parse_public(node.ek_public)
        grows = self._setting.container_pcr
        values = {pcr: pcrs[pcr] for pcr in SEALED_PCRS if pcr != grows}
        return tuple(
            seal_to_tpm(
                ek,
                self._vault.unlock(secret.name, secret.version, secret.nonce, secret.ciphertext),
                name=secret.name,
                version=secret.version,
                bank=bank,
                pcr_values=values,
                random=self._setting.random,
            )
            for secret in secrets
        )


def _holders(rows: Transaction, name: str) -> tuple[str, ...]:
    """Nodes that have received any version."""
    return tuple(
        node.name or node.id
        for node in rows.nodes.list()
        if any(release.name == name for release in rows.secrets.held_by(node.id))
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
        ciphertext_sha256=hashlib.sha256(secret.ciphertext).hexdigest(),
    )


def _view(secret: Secret) -> SecretView:
    return SecretView(
        name=secret.name,
        version=secret.version,
        roles=secret.roles,
        created_at=rfc3339(secret.created_at),
    )


def _require_name(name: str) -> None:
    try:
        msgspec.convert(name, SecretName)
    except msgspec.ValidationError as error:
        raise BadSecretName("not a name for a secret", got=ascii(name[:80])) from error
