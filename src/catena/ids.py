"""Names for the things that travel between rooms, so that no room confuses two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from hashlib import _Hash

    Hasher = Callable[[bytes], _Hash]

NodeId = NewType("NodeId", str)
"""SHA-256 of the EK's public area (TPMT_PUBLIC), 64 lower-case hex digits."""

NodeName = NewType("NodeName", str)
"""The name the server gave a node; never one a node gave itself."""

Sha256Hex = NewType("Sha256Hex", str)
"""A SHA-256 digest as 64 lower-case hex digits; names logs and evidence."""

ImageDigest = NewType("ImageDigest", str)
"""An image manifest's digest as OCI writes it, ``sha256:`` and 64 hex digits; an ACI's image ID
is ``sha512-`` and 128."""

DiffId = NewType("DiffId", str)
"""The digest of a layer's uncompressed tar stream: ``sha256:`` and 64 hex digits. An ACI is one
layer, named by its image ID."""

TreeDigest = NewType("TreeDigest", str)
"""SHA-256 of a file tree in ``containers.rootfs``' canonical listing: 64 hex digits."""

PCR_COUNT = 24
QUOTED_PCRS = tuple(range(16))
"""PCRs 0–15, the static root of trust: what every quote must select."""


class HashAlg(StrEnum):
    """A PCR bank or signature hash, named as Linux and the TCG name it."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"
    SM3_256 = "sm3_256"

    __hash__ = str.__hash__
    """Enum's own runs in Python; logs look digests up by bank thousands of times."""

    @property
    def size(self) -> int:
        """Digest size in bytes."""
        return _SIZES[self]

    @property
    def tpm_id(self) -> int:
        """The TPM_ALG_ID (TCG Algorithm Registry 1.32, table 3)."""
        return _TPM_ALG_IDS[self]

    def digest(self, data: bytes) -> bytes:
        """Hash ``data``."""
        return _HASHERS[self](data).digest()

    @property
    def hasher(self) -> Hasher:
        """The constructor of hashlib for this hash, for loops that extend PCRs."""
        return _HASHERS[self]


_TPM_ALG_IDS = {
    HashAlg.SHA1: 0x0004,
    HashAlg.SHA256: 0x000B,
    HashAlg.SHA384: 0x000C,
    HashAlg.SHA512: 0x000D,
    HashAlg.SM3_256: 0x0012,
}


_HASHERS: dict[HashAlg, Hasher] = {
    HashAlg.SHA1: hashlib.sha1,
    HashAlg.SHA256: hashlib.sha256,
    HashAlg.SHA384: hashlib.sha384,
    HashAlg.SHA512: hashlib.sha512,
    HashAlg.SM3_256: partial(hashlib.new, "sm3"),  # OpenSSL's; some firmware extends such a bank
}
_SIZES = {
    HashAlg.SHA1: 20,
    HashAlg.SHA256: 32,
    HashAlg.SHA384: 48,
    HashAlg.SHA512: 64,
    HashAlg.SM3_256: 32,
}
_BY_TPM_ID = {tpm_id: alg for alg, tpm_id in _TPM_ALG_IDS.items()}


def hash_alg_from_tpm_id(tpm_id: int) -> HashAlg | None:
    """The hash with this TPM_ALG_ID, or None if catena does not use it."""
    return _BY_TPM_ID.get(tpm_id)
