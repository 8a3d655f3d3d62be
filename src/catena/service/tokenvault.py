"""Secrets at rest under a storage key on a token: each value has a data key, which the token wraps.

::

    nonce          12  of the value
    ciphertext     12  nonce of the data key
                   48  AES-256-GCM by the token: data key and tag
                    …  AES-256-GCM by this process under the data key: value and tag

Both layers have name and version as associated data. The token sees 32 bytes for a secret of any size, and
never the value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from catena.errors import CatenaError
from catena.keys import hsm
from catena.keys.hsm import HsmCipher, TokenFailing
from catena.service.vault import (
    ID_DIGITS,
    NONCE_SIZE,
    KekUnusable,
    UnreadableSecret,
    Vault,
)

T = TypeVar("T")
_KEY_SIZE = 32
_WRAPPED = NONCE_SIZE + _KEY_SIZE + 16
_NAMING = b"catena/kek-id/v1"
_NAMING_NONCE = bytes(NONCE_SIZE)
"""For one message only, which never changes; other nonces are random."""


@dataclass(slots=True, unsafe_hash=True)
class TokenVault:
    """A storage key on a token. It is looked for when it is needed, and again after it failed."""

    uri: str = field(repr=False)
    named: str | None = None
    """The id that its file's name gives it: what is under it is known without the token."""
    _open: tuple[HsmCipher, str] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def digest(self) -> str:
        """What the log names it by: SHA-256 of what only the token makes of a fixed text."""
        return self._opened()[1]

    @property
    def id(self) -> str:
        """The first digits of that."""
        return self.named or self.digest[:ID_DIGITS]

    def lock(
        self, name: str, version: int, value: bytes, random: Callable[[int], bytes]
    ) -> tuple[bytes, bytes]:
        """Nonce and ciphertext. Raises ``KekUnusable``."""
        key, wrap_nonce, context = random(_KEY_SIZE), random(NONCE_SIZE), _context(name, version)
        wrapped = self._use(lambda token: token.encrypt(wrap_nonce, key, context))
        nonce, ciphertext = Vault(key).lock(name, version, value, random)
        return nonce, wrap_nonce + wrapped + ciphertext

    def unlock(self, name: str, version: int, nonce: bytes, ciphertext: bytes) -> bytes:
        """The value. Raises ``UnreadableSecret``, ``KekUnusable``."""
        wrap_nonce, wrapped = ciphertext[:NONCE_SIZE], ciphertext[NONCE_SIZE:_WRAPPED]
        if len(ciphertext) < _WRAPPED:
            raise UnreadableSecret(f"secret {name} version {version} does not decrypt")
        context = _context(name, version)
        try:
            key = self._use(lambda token: token.decrypt(wrap_nonce, wrapped, context))
        except KekUnusable as error:
            # A token that works, and does not take this, says that somebody changed it.
            self._use(_digest)
            raise UnreadableSecret(f"secret {name} version {version} does not decrypt") from error
        return Vault(key).unlock(name, version, nonce, ciphertext[_WRAPPED:])

    def _use(self, act: Callable[[HsmCipher], T]) -> T:
        """Once more with a new session if the one there was ended. Raises ``KekUnusable``."""
        fresh = self._open is None
        token, _ = self._opened()
        try:
            return act(token)
        except TokenFailing as error:
            self._open = None
            token.close()
            if fresh:
                raise KekUnusable("the token with a storage key fails", got=error.got) from error
        return self._use(act)

    def _opened(self) -> tuple[HsmCipher, str]:
        found = self._open
        if found is None:
            try:
                cipher = hsm.open_cipher(self.uri)
                found = cipher, _digest(cipher)
            except CatenaError as error:
                raise KekUnusable(
                    f"a storage key on a token cannot be used: {error.message}", got=error.code
                ) from error
            if self.named not in {None, found[1][:ID_DIGITS]}:
                raise KekUnusable(
                    "the token has another key of this name", expected=self.named, got=found[1]
                )
            self._open = found
        return found


def _digest(cipher: HsmCipher) -> str:
    return hashlib.sha256(cipher.encrypt(_NAMING_NONCE, _NAMING, _NAMING)).hexdigest()


def _context(name: str, version: int) -> bytes:
    return f"catena/wrapped-key/v1\n{name}\n{version}".encode()
