"""Secrets at rest: AES-256-GCM under a storage key (KEK), bound to name and version.

While a KEK is exchanged there are two: each ciphertext says which one it is under. The associated data make a ciphertext useless under another name or version: a row that
somebody moved in the database does not decrypt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from catena.errors import Unavailable

_NONCE_SIZE = 12
_ID_DIGITS = 16


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


def kek_digest(key: bytes) -> str:
    """What a storage key is named by: hex SHA-256 of something that only its holder can derive."""
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"catena/kek-id/v1").derive(key)
    return hashlib.sha256(derived).hexdigest()


def kek_id(key: bytes) -> str:
    """The first digits of that."""
    return kek_digest(key)[:_ID_DIGITS]


class KeyRing:
    """The storage keys that a server has, the oldest first. Safe to share between threads.

    ``read`` gives them as they are now, and is asked again for one that is not known.
    """

    __slots__ = ("_keys", "_read")

    def __init__(self, read: Callable[[], tuple[bytes, ...]]) -> None:
        self._read = read
        self._keys = self._known()

    @property
    def first(self) -> str:
        """The id of the oldest: what is in force before another one ever was."""
        return next(iter(self._keys))

    def get(self, kek: str) -> bytes:
        """The key with this id; an empty one means the oldest. Raises ``KekMissing``."""
        wanted = kek or self.first
        if wanted not in self._keys:
            self._keys = self._known()
        try:
            return self._keys[wanted]
        except KeyError as error:
            raise KekMissing("a storage key is not here", expected=ascii(wanted[:40])) from error

    def vault(self, kek: str) -> Vault:
        """What encrypts and decrypts under that key. Raises ``KekMissing``."""
        return Vault(self.get(kek))

    def _known(self) -> dict[str, bytes]:
        return {kek_id(key): key for key in self._read()}


@dataclass(frozen=True, slots=True)
class Vault:
    """Encrypts and decrypts secrets under one key."""

    key: bytes = field(repr=False)

    def lock(
        self, name: str, version: int, value: bytes, random: Callable[[int], bytes]
    ) -> tuple[bytes, bytes]:
        """Nonce and ciphertext."""
        nonce = random(_NONCE_SIZE)
        return nonce, AESGCM(self.key).encrypt(nonce, value, _context(name, version))

    def unlock(self, name: str, version: int, nonce: bytes, ciphertext: bytes) -> bytes:
        """The value. Raises ``UnreadableSecret``."""
        try:
            return AESGCM(self.key).decrypt(nonce, ciphertext, _context(name, version))
        except (InvalidTag, ValueError) as error:
            raise UnreadableSecret(f"secret {name} version {version} does not decrypt") from error


def _context(name: str, version: int) -> bytes:
    return f"catena/stored-secret/v1\n{name}\n{version}".encode()
