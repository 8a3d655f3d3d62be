"""Signatures of JSON Web Tokens (RFC 7518, section 3; RFC 8037), by keys from a JWK set.

===========  ======================  =================================
``alg``       key                      signature
===========  ======================  =================================
``RS256``     RSA, 2048 bits or more   RSASSA-PKCS1-v1_5, SHA-256
``ES256``     P-256                    ECDSA, SHA-256: 64 bytes, r and s
``EdDSA``     Ed25519                  64 bytes
===========  ======================  =================================

No other algorithm is there to be chosen: no ``none``, and none with a shared secret, so a public key is never
taken for one. The key decides about the algorithm, not the token (RFC 8725, section 3.1).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding

from catena.errors import FormatError, Refusal
from catena.formats import jwt
from catena.formats.jwk import Jwk
from catena.formats.jws import decode_base64url, encode_base64url
from catena.formats.jwt import Header, Jwt
from catena.keys.signer import ForgedSignature, KeyAlgorithm, Signer, UnusableKey

K = TypeVar("K")
_COORDINATE = 32
_LEAST_RSA, _MOST_RSA = 2048, 8192
_KINDS = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
"""By algorithm: type and curve of its keys."""


class WeakAlgorithm(Refusal):
    """A token signed in a way that proves nothing here."""

    code = "jwt-algorithm"
    remedy = "Let the issuer sign with RS256, ES256 or EdDSA."


class UnknownSigner(Refusal):
    """A token whose key is not in the issuer's set, or is for something else."""

    code = "jwt-key-unknown"
    remedy = "Log in again; if it stays so, the token is not of the issuer that server.toml names."


def verify(token: Jwt, keys: Iterable[Jwk]) -> None:
    """Check a token's signature. Raises ``WeakAlgorithm``, ``UnknownSigner``, ``ForgedSignature``."""
    algorithm = token.header.alg
    if algorithm not in _KINDS:
        raise WeakAlgorithm(
            "tokens signed in this way are not accepted",
            expected=", ".join(_KINDS),
            got=ascii(algorithm[:40]),
        )
    key = _chosen(token.header, keys)
    try:
        _verify(key, token)
    except InvalidSignature as error:
        raise ForgedSignature("the token's signature does not hold") from error


def sign(signer: Signer, claims: msgspec.Struct, *, typ: str = "JWT") -> str:
    """A token signed with ES256. Raises ``UnusableKey`` for a key that is not P-256."""
    if signer.algorithm is not KeyAlgorithm.ECDSA_P256:
        raise UnusableKey("tokens are signed by a P-256 key", got=signer.algorithm)
    signed = jwt.to_be_signed(Header(alg="ES256", kid=signer.key_id, typ=typ), claims)
    r, s = decode_dss_signature(signer.sign(signed))
    return jwt.encode(signed, r.to_bytes(_COORDINATE) + s.to_bytes(_COORDINATE))


def jwk_of(key: object, *, use: str, kid: str | None = None) -> Jwk:
    """A P-256 public key as a JWK. Raises ``UnusableKey`` for another."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UnusableKey("not a P-256 key", got=type(key).__name__)
    numbers = key.public_numbers()
    x, y = (encode_base64url(number.to_bytes(_COORDINATE)) for number in (numbers.x, numbers.y))
    return Jwk(kty="EC", use=use, kid=kid, crv="P-256", x=x, y=y)


def certificate_jwk(certificate: x509.Certificate, *, use: str) -> Jwk:
    """The key of a certificate, with the certificate (RFC 7517, section 4.7)."""
    der = certificate.public_bytes(Encoding.DER)
    key = jwk_of(certificate.public_key(), use=use)
    return msgspec.structs.replace(key, x5c=(base64.b64encode(der).decode(),))


def _chosen(header: Header, keys: Iterable[Jwk]) -> Jwk:
    """The one key that the token may be signed by (RFC 7515, section 4.1.4; RFC 7517, 4.2 and 4.4)."""
    kty, crv = _KINDS[header.alg]
    fitting = [
        key
        for key in keys
        if (key.kty, key.crv) == (kty, crv)
        and key.use in {None, "sig"}
        and key.alg in {None, header.alg}
        and header.kid in {None, key.kid}
    ]
    if len(fitting) != 1:
        raise UnknownSigner(
            "no key of the issuer fits this token",
            expected="exactly one",
            got=f"{len(fitting)} with kid {(header.kid or '')[:80]!a}",
        )
    return fitting[0]


def _verify(key: Jwk, token: Jwt) -> None:
    signed, signature = token.to_be_signed, token.signature
    match token.header.alg:
        case "RS256":
            _rsa(key).verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        case "ES256":
            if len(signature) != 2 * _COORDINATE:
                raise InvalidSignature
            r, s = (int.from_bytes(part) for part in (signature[:32], signature[32:]))
            _p256(key).verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
        case _:
            raw = _bytes(key.x)
            _public(lambda: ed25519.Ed25519PublicKey.from_public_bytes(raw)).verify(
                signature, signed
            )


def _rsa(key: Jwk) -> rsa.RSAPublicKey:
    modulus, exponent = int.from_bytes(_bytes(key.n)), int.from_bytes(_bytes(key.e))
    if not _LEAST_RSA <= modulus.bit_length() <= _MOST_RSA or exponent.bit_length() > _COORDINATE:
        raise UnknownSigner("the issuer's RSA key has an unusable size")
    return _public(lambda: rsa.RSAPublicNumbers(exponent, modulus).public_key())


def _p256(key: Jwk) -> ec.EllipticCurvePublicKey:
    x, y = int.from_bytes(_bytes(key.x)), int.from_bytes(_bytes(key.y))
    return _public(lambda: ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())


def _public(make: Callable[[], K]) -> K:
    """The key that ``make`` gives. Raises ``UnknownSigner`` for numbers that are no key."""
    try:
        return make()
    except ValueError as error:
        raise UnknownSigner("the issuer's key is no key of its type") from error


def _bytes(text: str | None) -> bytes:
    if text is None:
        raise FormatError("a JWK lacks a member of its type")
    return decode_base64url(text)
