"""Secrets at rest: AES-256-GCM under a storage key (KEK), bound to name and version.

A KEK is a key in a file (``Vault``) or on a token (``tokenvault``).

While a KEK is exchanged there are two: each ciphertext says which one it is under. The associated data make a ciphertext useless under another name or version: a row that
somebody moved in the database does not decrypt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from catena.errors import Unavailable

NONCE_SIZE = 12
ID_DIGITS = 16


class UnreadableSecret(Unavailable):
    """A stored secret that does not decrypt: another storage key, or a changed row."""

    code = "unreadable-secret"
    remedy = "Restore the storage key that belongs to this database, or put the secret anew."


class KekMissing(Unavailable):
    """Secrets are under a storage key that this server does not have."""

    code = "kek-missing"
    remedy = (
        "Copy the file storage-ID.key into this server's folder, mode 0600; it is found at once."
    )


class KekUnusable(Unavailable):
    """A storage key on a token that is not there, or does not do its work."""

    code = "kek-unusable"
    remedy = (
        "See that the token is there and its PIN's file is right, then ask again; if it was pulled while "
        "the server ran, restart the server. `catena server check` looks at it."
    )


class Kek(Protocol):
    """What encrypts and decrypts secrets under one storage key. May be asked by many threads."""

    @property
    def digest(self) -> str:
        """What the log names it by, hex SHA-256. Raises ``KekUnusable``."""
        ...

    @property
    def id(self) -> str:
        """The first digits of that. Raises ``KekUnusable``."""
        ...

    def lock(
        self, name: str, version: int, value: bytes, random: Callable[[int], bytes]
    ) -> tuple[bytes, bytes]:
        """Nonce and ciphertext. Raises ``KekUnusable``."""
        ...

    def unlock(self, name: str, version: int, nonce: bytes, ciphertext: bytes) -> bytes:
        """The value. Raises ``UnreadableSecret``, ``KekUnusable``."""
        ...


def kek_digest(key: bytes) -> str:
    """What a storage key is named by: hex SHA-256 of something that only its holder can derive."""
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"catena/kek-id/v1").derive(key)
    return hashlib.sha256(derived).hexdigest()


def kek_id(key: bytes) -> str:
    """The first digits of that."""
    return kek_digest(key)[:ID_DIGITS]


class KeyRing:
    """The storage keys that a server has, the oldest first. Safe to share between threads.

    ``read`` gives them as they are now, and is asked again for one that is not known. One on a token that is
    not there is passed over: only what is under it cannot be had.
    """

    __slots__ = ("_all", "_keys", "_read", "_unusable")

    def __init__(self, read: Callable[[], tuple[Kek, ...]]) -> None:
        self._read = read
        self._all: tuple[Kek, ...] = ()
        self._look()

    @property
    def first(self) -> str:
        """The id of the oldest: what is in force before another one ever was. Raises ``KekUnusable``."""
        try:
            return self._all[0].id
        except KekUnusable:
            self._look()  # its file may name another token by now
            return self._all[0].id

    def vault(self, kek: str) -> Kek:
        """The key with this id; an empty one means the oldest. Raises ``KekMissing``, ``KekUnusable``."""
        wanted = kek or self.first
        if wanted not in self._keys:
            self._look()
        found, unusable = self._keys.get(wanted), self._unusable
        if found is not None:
            return found
        if unusable is not None:  # which one it is, only its token knows
            raise KekUnusable(unusable.message, got=unusable.got) from unusable
        raise KekMissing("a storage key is not here", expected=ascii(wanted[:40]))

    def _look(self) -> None:
        known = {one: one for one in self._all}  # what is open stays open
        self._all = tuple(known.get(one, one) for one in self._read())
        keys: dict[str, Kek] = {}
        unusable: KekUnusable | None = None
        for one in self._all:
            try:
                keys[one.id] = one
            except KekUnusable as error:
                unusable = error
        self._keys, self._unusable = keys, unusable


@dataclass(frozen=True, slots=True)
class Vault:
    """A storage key that this process has."""

    key: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """What the log names it by."""
        return kek_digest(self.key)

    @property
    def id(self) -> str:
        """The first digits of that."""
        return kek_id(self.key)

    def lock(
        self, name: str, version: int, value: bytes, random: Callable[[int], bytes]
    ) -> tuple[bytes, bytes]:
        """Nonce and ciphertext."""
        nonce = random(NONCE_SIZE)
        return nonce, AESGCM(self.key).encrypt(nonce, value, _context(name, version))

    def unlock(self, name: str, version: int, nonce: bytes, ciphertext: bytes) -> bytes:
        """The value. Raises ``UnreadableSecret``."""
        try:
            return AESGCM(self.key).decrypt(nonce, ciphertext, _context(name, version))
        except (InvalidTag, ValueError) as error:
            raise UnreadableSecret(f"secret {name} version {version} does not decrypt") from error


def _context(name: str, version: int) -> bytes:
    return f"catena/stored-secret/v1\n{name}\n{version}".encode()
