"""Another key for secrets at rest, while servers go on serving.

::

    switch   entry, then: new secrets are under the new KEK
    batches  each one transaction: ciphertexts move to the new KEK, compare-and-swap
    end      nothing is under the old KEK: entry, then it is forgotten

Every request does the switch if it is not done, then one batch, then the end if nothing is left. So
whoever stops at any place, or is killed there, goes on by asking again. Storing a secret holds the
KEK in force until its transaction ends: nothing comes to lie under the old one after the switch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from catena.audit.entries import KeyChanged
from catena.errors import NotFound
from catena.service.secrets import opened
from catena.service.setting import Setting
from catena.service.vault import KekMissing
from catena.service.views import RekeyRequest, RekeyView
from catena.store.secrets import Secret

BATCH = 16
"""Secrets, of at most a megabyte each, that are in memory at once."""
KEY = "secrets"
"""What a KEK is for, as entries say it."""


class UnknownKek(NotFound):
    """A storage key that was asked for and is not in this server's folder."""

    code = "unknown-kek"
    remedy = "Make one with `catena server rotate-kek`, or copy its file here; it is found at once."


class Rekeying:
    """The verb *rekey*."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._keys = setting.keys.storage

    def rekey(self, request: RekeyRequest, actor: str) -> RekeyView:
        """One step towards ``request.kek``; nothing is left to do when ``remaining`` is 0.

        Raises ``UnknownKek``, ``KekMissing``, ``KekUnusable``, ``KekMoved``, ``UnreadableSecret``.
        """
        kek, database = request.kek, self._setting.database
        try:
            self._keys.vault(kek)
        except KekMissing as error:
            raise UnknownKek("no storage key here has this id", got=kek) from error
        with self._setting.journal.deciding("keks"):
            self._switch(kek, actor)
            rekeyed = self._move(kek)
            with database.snapshot() as rows:
                remaining = rows.secrets.count_not_under(kek)
            ended = () if remaining else self._end(actor)
        return RekeyView(kek=kek, rekeyed=rekeyed, remaining=remaining, ended=ended)

    def _switch(self, kek: str, actor: str) -> None:
        setting = self._setting
        with setting.database.snapshot() as rows:
            before = rows.keks.in_force() or self._keys.first
        if before != kek:
            setting.journal.record(self._entry("added", kek, actor))
            with setting.journal.effect() as rows:
                rows.keks.switch(before, kek, at=setting.now())

    def _move(self, kek: str) -> int:
        """One batch; how many moved. A version that was removed meanwhile stays removed."""
        with self._setting.database.snapshot() as rows:
            batch = rows.secrets.not_under(kek, BATCH)
        moved = [(secret, self._under(kek, secret)) for secret in batch]
        with self._setting.database.transaction() as rows:
            return sum(rows.secrets.reencrypt(old, new) for old, new in moved)

    def _under(self, kek: str, secret: Secret) -> Secret:
        value = opened(self._keys, secret)
        nonce, ciphertext = self._keys.vault(kek).lock(
            secret.name, secret.version, value, self._setting.random
        )
        return replace(secret, kek=kek, nonce=nonce, ciphertext=ciphertext)

    def _end(self, actor: str) -> tuple[str, ...]:
        setting = self._setting
        with setting.database.snapshot() as rows:
            before = rows.keks.before()
        for kek in before:
            setting.journal.record(self._entry("removed", kek, actor))
            with setting.journal.effect() as rows:
                rows.keks.forget(kek)
        return before

    def _entry(self, action: Literal["added", "removed"], kek: str, actor: str) -> KeyChanged:
        return KeyChanged(
            at=self._setting.now(),
            actor=actor,
            action=action,
            key=KEY,
            key_sha256=self._keys.vault(kek).digest,
        )
