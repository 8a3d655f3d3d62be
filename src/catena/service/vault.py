"""Secrets at rest: AES-256-GCM under the storage key, bound to name and version.

The associated data make a ciphertext useless under another name or version: a row that
somebody moved in the database does not decrypt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from catena.errors import Unavailable

_NONCE_SIZE = 12


class UnreadableSecret(Unavailable):
    """A stored secret that does not decrypt: another storage key, or a changed row."""

    code = "unreadable-secret"
    remedy = "Restore the storage key that belongs to this database, or put the secret anew."


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
