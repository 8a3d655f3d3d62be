r"""A seed that exactly one endorsement key can recover (TPM 2.0 Library, Part 1, revision 1.59).

=====  ========================================================================================
RSA    Annex B.10: the seed itself, by RSAES-OAEP with the EK's nameAlg; the label has its NUL
ECC    Annex C.6.3: the seed is ``KDFe(nameAlg, Z, label, ephemeral x, EK's x)`` over the x
       coordinate Z of an ECDH; the other side gets the ephemeral point (TPMS_ECC_POINT)
=====  ========================================================================================

Both take the randomness from the caller: of RSA it is the seed, of ECC it makes the ephemeral key.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from catena.formats.tpm2 import sized2b
from catena.ids import HashAlg
from catena.keys.kdf import kdfa, kdfe

_HASHES: dict[HashAlg, type[hashes.HashAlgorithm]] = {
    HashAlg.SHA256: hashes.SHA256,
    HashAlg.SHA384: hashes.SHA384,
    HashAlg.SHA512: hashes.SHA512,
}
_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}
"""Orders of the groups (FIPS 186-4, D.1.2)."""
_EXTRA_BITS = 64
"""More than the order has, so that a scalar reduced to it is as good as an even one (FIPS 186-5, A.2.1)."""

HASHES = frozenset(_HASHES)
CURVES = frozenset(_ORDERS)


def share_seed(
    ek: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, alg: HashAlg, label: bytes, random: bytes
) -> tuple[bytes, bytes]:
    """The seed, and what the EK recovers it from; ``random`` has the size of ``alg``'s digest."""
    if isinstance(ek, ec.EllipticCurvePublicKey):
        return _agree(ek, alg, label, random)
    digest = _HASHES[alg]()
    return random, ek.encrypt(random, padding.OAEP(padding.MGF1(digest), digest, label))


def _agree(
    ek: ec.EllipticCurvePublicKey, alg: HashAlg, label: bytes, random: bytes
) -> tuple[bytes, bytes]:
    size = (ek.curve.key_size + 7) // 8
    ephemeral = _ephemeral(ek.curve, alg, random)
    own, static = ephemeral.public_key().public_numbers(), ek.public_numbers()
    x, y = own.x.to_bytes(size, "big"), own.y.to_bytes(size, "big")
    shared = ephemeral.exchange(ec.ECDH(), ek)
    seed = kdfe(alg, shared, label, x, static.x.to_bytes(size, "big"))
    return seed, sized2b(x) + sized2b(y)


def _ephemeral(curve: ec.EllipticCurve, alg: HashAlg, random: bytes) -> ec.EllipticCurvePrivateKey:
    order = _ORDERS[curve.name]
    wide = kdfa(alg, random, b"EPHEMERAL", b"", b"", bits=curve.key_size + _EXTRA_BITS)
    return ec.derive_private_key(int.from_bytes(wide, "big") % (order - 1) + 1, curve)
