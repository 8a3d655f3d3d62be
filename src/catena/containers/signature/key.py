"""Public keys that verify image signatures: P-256, P-384, RSA and Ed25519.

These are other people's keys, so there are more kinds than catena's own (``keys.signer``).

=========  ===============================  ==============================================
key        signature                        hash
=========  ===============================  ==============================================
P-256      ECDSA, DER                       SHA-256
P-384      ECDSA, DER                       SHA-256 (cosign's default) or SHA-384 (bundles)
RSA        PKCS #1 v1.5, 2048 to 8192 bits  SHA-256
Ed25519    64 bytes                         (its own)
=========  ===============================  ==============================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from catena.keys.signer import PublicKey, UnusableKey, key_id_of

RSA_BITS = range(2048, 8193)
MAX_EXPONENT = 2**32

_SHA256 = (hashes.SHA256(),)
_HASHES: dict[type[ec.EllipticCurve], tuple[hashes.HashAlgorithm, ...]] = {
    ec.SECP256R1: _SHA256,
    ec.SECP384R1: (hashes.SHA256(), hashes.SHA384()),
}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key; ``id`` is the hex SHA-256 of its SPKI, and all there is to compare."""

    id: str
    public: PublicKey = field(compare=False)

    def holds(self, signature: bytes, message: bytes) -> bool:
        """Whether the key made this signature over ``message``."""
        return self._verify(signature, message, prehashed=False)

    def holds_digest(self, signature: bytes, sha256: bytes) -> bool:
        """The same over content whose SHA-256 is known; never true for Ed25519, which has no such."""
        return self._verify(signature, sha256, prehashed=True)

    def _verify(self, signature: bytes, message: bytes, *, prehashed: bool) -> bool:
        key = self.public
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                if prehashed:
                    return False
                key.verify(signature, message)
                return True
        except InvalidSignature:
            return False
        used = _HASHES[type(key.curve)] if isinstance(key, ec.EllipticCurvePublicKey) else _SHA256
        return any(
            _holds(key, signature, message, Prehashed(one) if prehashed else one)
            for one in (_SHA256 if prehashed else used)
        )


def _holds(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    signature: bytes,
    message: bytes,
    algorithm: hashes.HashAlgorithm | Prehashed,
) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), algorithm)
        else:
            key.verify(signature, message, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def parse_key(pem: str) -> VerificationKey:
    """Read a PEM public key. Raises ``UnusableKey``."""
    try:
        return key_of(serialization.load_pem_public_key(pem.encode()))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey("not a PEM public key") from error


def key_of(public: object) -> VerificationKey:
    """The key, if it is of a kind in the table. Raises ``UnusableKey``."""
    match public:
        case rsa.RSAPublicKey():
            accepted = public.key_size in RSA_BITS and public.public_numbers().e < MAX_EXPONENT
        case ec.EllipticCurvePublicKey():
            accepted = type(public.curve) in _HASHES
        case _:
            accepted = isinstance(public, ed25519.Ed25519PublicKey)
    if not accepted or not isinstance(
        public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
    ):
        raise UnusableKey(
            "key has an algorithm or size that verifies no images",
            expected="P-256, P-384, RSA from 2048 bits, or Ed25519",
            got=type(public).__name__,
        )
    return VerificationKey(key_id_of(public), public)


def signer_of(
    keys: Sequence[VerificationKey], signature: bytes, message: bytes
) -> VerificationKey | None:
    """The one of ``keys`` that made a signature over ``message``."""
    return next((key for key in keys if key.holds(signature, message)), None)


def sha256(content: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(content).hexdigest()
