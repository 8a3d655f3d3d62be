"""Notation signatures, JWS and COSE: verified under roots and identities, and made.

Notary Project, "Signature specification", "Signature verification"; every check has the effect
of level ``strict``:

1. The envelope is read; its certificates become a chain (``certificates``).
2. The signature holds under the first certificate's key, with the algorithm of that key
   (RSA 2048, 3072, 4096: PS256, PS384, PS512; P-256, P-384, P-521: ES256, ES384, ES512).
3. Only then are the attributes read (``notation_attributes``): no unknown critical header.
4. The chain passes through a root of the scheme's own trust store and is valid **now**. A time
   stamp in the envelope is not read, so it cannot keep an expired certificate alive. Only a signing
   authority's chain is judged at the time that the authority vouches for, as the specification says.
5. The signature has not expired, and was not made in the future.
6. The signer's subject is a trusted identity.
7. The payload names the image.

A notation signature names no repository: it holds wherever the image is copied. Policies bind
the publisher to a scope instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, ClassVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding

from catena.containers.signature import notation_attributes as attributes_of
from catena.containers.signature.certificates import check_chain, parse_chain
from catena.containers.signature.identities import ANY, match_identity
from catena.containers.signature.notation_attributes import SignedAttributes, SigningScheme
from catena.containers.signature.result import SignatureFormat, SignatureRefused
from catena.errors import FormatError, UsageError
from catena.formats import cose, jws, notation
from catena.formats.jws import JwsEnvelope, decode_base64url, encode_base64url
from catena.formats.notation import Descriptor, Payload
from catena.ids import ImageDigest, Sha256Hex
from catena.keys.signer import KeyAlgorithm, Signer, key_id_of

MAX_SKEW = timedelta(minutes=5)
SIGNING_AGENT = "catena"
_AGENT = "io.cncf.notary.signingAgent"
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
_RSA_ALGORITHMS = {2048: "PS256", 3072: "PS384", 4096: "PS512"}
_CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class TamperedEnvelope(SignatureRefused):
    """A signature that does not hold under the key of its own certificate."""

    code = "notation-tampered"
    reached: ClassVar[int] = 3


class WrongAlgorithm(SignatureRefused):
    """A signature with another algorithm than the one that belongs to its key."""

    code = "notation-algorithm"
    reached: ClassVar[int] = 3


class ExpiredSignature(SignatureRefused):
    """A signature past the expiry that its signer gave it."""

    code = "signature-expired"
    remedy = "Have the publisher sign the image again."
    reached: ClassVar[int] = 9


class SignedInTheFuture(SignatureRefused):
    """A signature that claims to be made later than now."""

    code = "notation-signed-in-the-future"
    remedy = "Check the clock of this machine, then that of the signer."
    reached: ClassVar[int] = 14


class SignedOtherImage(SignatureRefused):
    """A good signature, of another image."""

    code = "signed-other-image"


class UnsupportedSigner(UsageError):
    """A key that cannot sign for notation."""

    code = "notation-signer"
    remedy = "Sign with a P-256 key and a certificate for it."


@dataclass(frozen=True, slots=True)
class NotationTrust:
    """Whom to believe: ``roots`` for signers, ``authorities`` for signing authorities, and which
    subjects (``identities``: ``*``, or notation's ``x509.subject: …``) may sign.
    """

    roots: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...] = ()
    identities: tuple[str, ...] = (ANY,)


@dataclass(frozen=True, slots=True)
class NotationProof:
    """Proven: the holder of ``certificate``, the first of ``chain``, signed ``target``, which is ``image``.

    ``key`` is the hex SHA-256 of the SPKI, ``certificate_digest`` that of the certificate, ``identity``
    the trusted identity that matched. ``signed_at`` is the signer's word, or the authority's.
    """

    image: ImageDigest
    format: SignatureFormat
    target: Descriptor
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    certificate_digest: Sha256Hex
    key: str
    subject: str
    identity: str
    scheme: SigningScheme
    signed_at: datetime
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class _Signed:
    """An envelope of either kind, taken apart. The order of reading is ``_prove``'s."""

    format: SignatureFormat
    message: bytes
    payload: bytes
    signature: bytes
    chain: tuple[x509.Certificate, ...]


class _JwsHeader(msgspec.Struct, frozen=True):
    x5c: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=16)]


def verify_jws(
    envelope: bytes, image: ImageDigest, trust: NotationTrust, now: datetime
) -> NotationProof:
    """Verify a JWS envelope as the module says.

    Raises ``FormatError`` or subclasses of ``SignatureRefused``.
    """
    parsed = jws.parse(envelope)  # (1)
    try:
        header = msgspec.convert(
            {"x5c": msgspec.json.decode(parsed.header.get("x5c", msgspec.Raw(b"null")))}, _JwsHeader
        )
    except msgspec.DecodeError as error:
        raise FormatError("JWS envelope has no certificates") from error
    signed = _Signed(
        format=SignatureFormat.NOTATION_JWS,
        message=parsed.to_be_signed(),
        payload=decode_base64url(parsed.payload),
        signature=decode_base64url(parsed.signature),
        chain=parse_chain(header.x5c),
    )
    _check_signature(signed)  # (2)
    attributes = attributes_of.from_jws(decode_base64url(parsed.protected))  # (3)
    return _prove(signed, attributes, image, trust, now)


def verify_cose(
    envelope: bytes, image: ImageDigest, trust: NotationTrust, now: datetime
) -> NotationProof:
    """Verify a COSE envelope as the module says.

    Raises ``FormatError`` or subclasses of ``SignatureRefused``.
    """
    parsed = cose.parse(envelope)  # (1)
    chain = parsed.unprotected.get(cose.X5CHAIN)
    ders = (chain,) if isinstance(chain, bytes) else chain
    if not isinstance(ders, tuple) or not all(isinstance(one, bytes) for one in ders):
        raise FormatError("COSE envelope has no certificates")
    signed = _Signed(
        format=SignatureFormat.NOTATION_COSE,
        message=parsed.to_be_signed(),
        payload=parsed.payload,
        signature=parsed.signature,
        chain=parse_chain([one for one in ders if isinstance(one, bytes)]),
    )
    _check_signature(signed)  # (2)
    attributes = attributes_of.from_cose(parsed.protected)  # (3)
    return _prove(signed, attributes, image, trust, now)


def verify(
    media_type: str, envelope: bytes, image: ImageDigest, trust: NotationTrust, now: datetime
) -> NotationProof:
    """Verify an envelope of the kind that its layer's media type says."""
    match media_type:
        case notation.JWS_TYPE:
            return verify_jws(envelope, image, trust, now)
        case notation.COSE_TYPE:
            return verify_cose(envelope, image, trust, now)
        case _:
            raise FormatError("not a kind of notation envelope", got=ascii(media_type[:80]))


def sign_jws(
    signer: Signer,
    chain: Sequence[x509.Certificate],
    target: Descriptor,
    now: datetime,
    expiry: datetime | None = None,
) -> bytes:
    """A JWS envelope over ``target``; ``chain`` begins with the signer's certificate and ends with its
    root. Raises ``UnsupportedSigner``.
    """
    attributes = _own_attributes(signer, chain, now, expiry)
    protected = encode_base64url(attributes_of.to_jws(attributes))
    payload = encode_base64url(Payload(target).encode())
    header = {
        "x5c": msgspec.Raw(msgspec.json.encode([_der(one) for one in chain])),
        _AGENT: msgspec.Raw(msgspec.json.encode(SIGNING_AGENT)),
    }
    unsigned = JwsEnvelope(payload, protected, "", header)
    signature = encode_base64url(_sign(signer, unsigned.to_be_signed()))
    return msgspec.structs.replace(unsigned, signature=signature).encode()


def sign_cose(
    signer: Signer,
    chain: Sequence[x509.Certificate],
    target: Descriptor,
    now: datetime,
    expiry: datetime | None = None,
) -> bytes:
    """A COSE envelope over ``target``, as ``sign_jws``."""
    attributes = _own_attributes(signer, chain, now, expiry)
    headers: cose.Headers = {
        cose.X5CHAIN: tuple(_der(one) for one in chain),
        _AGENT: SIGNING_AGENT,
    }
    unsigned = cose.CoseSign1(
        attributes_of.to_cose(attributes), headers, Payload(target).encode(), b""
    )
    signature = _sign(signer, unsigned.to_be_signed())
    return cose.CoseSign1(unsigned.raw_protected, headers, unsigned.payload, signature).encode()


def thumbprints(chain: Sequence[x509.Certificate]) -> str:
    """The manifest annotation ``io.cncf.notary.x509chain.thumbprint#S256``: a JSON list of hex digests."""
    return msgspec.json.encode([hashlib.sha256(_der(one)).hexdigest() for one in chain]).decode()


def _prove(
    signed: _Signed,
    attributes: SignedAttributes,
    image: ImageDigest,
    trust: NotationTrust,
    now: datetime,
) -> NotationProof:
    """Steps 3 to 7, behind a signature that holds."""
    signer = signed.chain[0]
    algorithm = _algorithm_of(_signing_key(signer))
    if attributes.algorithm != algorithm:
        raise WrongAlgorithm(
            "signature names another algorithm than its key's",
            expected=algorithm,
            got=ascii(attributes.algorithm[:40]),
        )
    authority = attributes.scheme is SigningScheme.AUTHORITY  # (4)
    roots = trust.authorities if authority else trust.roots
    check_chain(signed.chain, roots, attributes.signing_time if authority else now)
    _check_times(attributes, now)  # (5)
    identity = match_identity(signer.subject, trust.identities)  # (6)
    target = notation.parse_payload(signed.payload).target_artifact  # (7)
    if target.digest != image:
        raise SignedOtherImage("signature is of another image", expected=image, got=target.digest)
    return NotationProof(
        image=image,
        format=signed.format,
        target=target,
        certificate=signer,
        chain=signed.chain,
        certificate_digest=Sha256Hex(hashlib.sha256(_der(signer)).hexdigest()),
        key=key_id_of(_signing_key(signer)),
        subject=signer.subject.rfc4514_string(),
        identity=identity,
        scheme=attributes.scheme,
        signed_at=attributes.signing_time,
        expires=attributes.expiry,
    )


def _check_times(attributes: SignedAttributes, now: datetime) -> None:
    if attributes.expiry is not None and attributes.expiry <= now:
        raise ExpiredSignature(
            "signature has expired",
            expected=f"before {attributes.expiry:%Y-%m-%dT%H:%MZ}",
            got=f"{now:%Y-%m-%dT%H:%MZ}",
        )
    if attributes.signing_time > now + MAX_SKEW:
        raise SignedInTheFuture(
            "signature claims a time that has not come",
            expected=f"until {now:%Y-%m-%dT%H:%MZ}",
            got=f"{attributes.signing_time:%Y-%m-%dT%H:%MZ}",
        )


def _check_signature(signed: _Signed) -> None:
    """Hold the signature under the signer's key, with the algorithm of that key."""
    key = _signing_key(signed.chain[0])
    algorithm = _algorithm_of(key)
    digest = _HASHES[algorithm[2:]]()
    try:
        match key:
            case rsa.RSAPublicKey():
                pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
                key.verify(signed.signature, signed.message, pss, digest)
            case ec.EllipticCurvePublicKey():
                key.verify(_der_signature(signed.signature, key), signed.message, ec.ECDSA(digest))
    except InvalidSignature as error:
        raise TamperedEnvelope("signature does not hold under its certificate") from error


def _signing_key(certificate: x509.Certificate) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise WrongAlgorithm("signer's key cannot be read") from error
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise WrongAlgorithm(
            "signer's key is of a kind that notation does not use", expected="RSA or EC"
        )
    return key


def _algorithm_of(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        algorithm, got = _RSA_ALGORITHMS.get(key.key_size), f"RSA {key.key_size}"
    else:
        algorithm, got = _CURVE_ALGORITHMS.get(key.curve.name), key.curve.name
    if algorithm is None:
        raise WrongAlgorithm(
            "signer's key has a size that notation does not use",
            expected="RSA 2048, 3072, 4096, P-256, P-384, P-521",
            got=got,
        )
    return algorithm


def _der_signature(signature: bytes, key: ec.EllipticCurvePublicKey) -> bytes:
    """``r ‖ s`` of fixed length (RFC 7518 section 3.4, RFC 9053 section 2.1) as DER."""
    size = (key.curve.key_size + 7) // 8
    if len(signature) != 2 * size:
        raise TamperedEnvelope("signature has a wrong length", expected=f"{2 * size} bytes")
    r, s = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
    return utils.encode_dss_signature(r, s)


def _own_attributes(
    signer: Signer, chain: Sequence[x509.Certificate], now: datetime, expiry: datetime | None
) -> SignedAttributes:
    if signer.algorithm is not KeyAlgorithm.ECDSA_P256:
        raise UnsupportedSigner(
            "key cannot sign for notation", expected=KeyAlgorithm.ECDSA_P256, got=signer.algorithm
        )
    if not chain or key_id_of(_signing_key(chain[0])) != signer.key_id:
        raise UnsupportedSigner("the first certificate is not the signer's")
    return SignedAttributes("ES256", SigningScheme.X509, now, expiry)


def _sign(signer: Signer, message: bytes) -> bytes:
    r, s = utils.decode_dss_signature(signer.sign(message))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
