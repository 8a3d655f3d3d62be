"""The fields of a vendor's certificate that decide about an endorsement (RFC 5280, clause 4).

Decoded with asn1crypto, field by field, so that one odd field does not hide the others. All of
it is *untrusted* until ``has_signed`` links it to an accepted root.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asn1crypto import keys, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

MAX_SUBJECT = 200
RSA_BITS = range(2048, 8193)
MAX_EXPONENT = 2**32
"""Beyond these an RSA key is weak, or costs more to verify with than a stranger may cause."""

_CURVES: dict[str, ec.EllipticCurve] = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1()}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_KNOWN_EXTENSIONS = frozenset(
    {
        "basic_constraints",
        "key_usage",
        "extended_key_usage",
        "subject_alt_name",
        "authority_key_identifier",
        "key_identifier",
        "crl_distribution_points",
        "authority_information_access",
        "certificate_policies",
        "subject_directory_attributes",
    }
)
"""Extensions that are judged here, or that may be critical without limiting the path."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate; ``subject`` and ``issuer`` are raw DER names.

    ``key_numbers`` is (exponent, modulus) or (curve bits, x, y), None for another kind or
    size of key.
    """

    subject: bytes
    issuer: bytes
    subject_text: str
    not_before: datetime
    not_after: datetime
    key_numbers: tuple[int, ...] | None
    is_authority: bool
    path_length: int | None
    key_usage: frozenset[str]
    extended_key_usage: frozenset[str]
    unknown_critical: tuple[str, ...]
    _signed: bytes
    _signature: bytes
    _signature_kind: tuple[str, str]

    def has_signed(self, other: Certificate) -> bool:
        """Whether this certificate's key made ``other``'s signature, with an accepted hash."""
        kind, name = other._signature_kind
        algorithm = _HASHES.get(name)
        if algorithm is None or self.key_numbers is None:
            return False
        try:
            _verify(self.key_numbers, kind, other._signature, other._signed, algorithm)
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            return False
        return True


def parse_certificate(der: bytes) -> Certificate:
    """Read a certificate, with or without the padding that TPM memory leaves behind it.

    Raises ``ValueError`` for bytes that are no certificate.
    """
    try:
        return _read(x509.Certificate.load(_without_padding(der), strict=True))
    except (
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError("not a certificate") from error


def _without_padding(der: bytes) -> bytes:
    """NV indices hold the certificate followed by 0x00 or 0xFF up to their size."""
    if der[:2] != b"\x30\x82":
        return der
    end = 4 + int.from_bytes(der[2:4], "big")
    padding_only = not der[end:].strip(b"\x00") or not der[end:].strip(b"\xff")
    return der[:end] if padding_only else der


def _read(certificate: Any) -> Certificate:  # noqa: ANN401  asn1crypto has no types
    body = certificate["tbs_certificate"]
    constraints = certificate.basic_constraints_value
    usage = certificate.key_usage_value
    extended = certificate.extended_key_usage_value
    return Certificate(
        subject=body["subject"].dump(),
        issuer=body["issuer"].dump(),
        subject_text=_printable(certificate.subject.human_friendly),
        not_before=_moment(body["validity"]["not_before"].native),
        not_after=_moment(body["validity"]["not_after"].native),
        key_numbers=_key_numbers(body["subject_public_key_info"]),
        is_authority=bool(constraints is not None and constraints["ca"].native),
        path_length=None if constraints is None else constraints["path_len_constraint"].native,
        key_usage=frozenset(usage.native) if usage is not None else frozenset(),
        extended_key_usage=frozenset(item.dotted for item in extended or ()),
        unknown_critical=tuple(sorted(certificate.critical_extensions - _KNOWN_EXTENSIONS)),
        _signed=body.dump(),
        _signature=certificate["signature_value"].native,
        _signature_kind=_signature_kind(certificate["signature_algorithm"]),
    )


def _moment(value: object) -> datetime:
    """An instant; DER also has times without a zone and years that Python cannot hold."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("a validity that is no instant")
    return value


def _printable(text: str) -> str:
    """A subject as one bounded line of printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:MAX_SUBJECT])


def _key_numbers(spki: Any) -> tuple[int, ...] | None:  # noqa: ANN401
    """The key itself, whatever algorithm identifier labels an RSA key."""
    algorithm = spki["algorithm"]["algorithm"].native
    if algorithm in ("rsa", "rsaes_oaep", "rsassa_pss"):
        numbers = keys.RSAPublicKey.load(bytes(spki["public_key"]), strict=True)
        exponent, modulus = numbers["public_exponent"].native, numbers["modulus"].native
        sound = modulus.bit_length() in RSA_BITS and 1 < exponent < MAX_EXPONENT
        return (exponent, modulus) if sound else None
    if algorithm == "ec":
        curve = _CURVES.get(str(spki["algorithm"]["parameters"].native))
        if curve is not None:
            point = bytes(spki["public_key"])
            numbers = ec.EllipticCurvePublicKey.from_encoded_point(curve, point).public_numbers()
            return (curve.key_size, numbers.x, numbers.y)
    return None


def _signature_kind(algorithm: Any) -> tuple[str, str]:  # noqa: ANN401
    """The scheme and hash; empty for one that is not known here."""
    try:
        return algorithm.signature_algo, algorithm.hash_algo
    except ValueError:
        return "", ""


def _verify(
    numbers: tuple[int, ...],
    kind: str,
    signature: bytes,
    signed: bytes,
    algorithm: hashes.HashAlgorithm,
) -> None:
    if len(numbers) == 3:
        bits, x, y = numbers
        curve = next(curve for curve in _CURVES.values() if curve.key_size == bits)
        point = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
        if kind != "ecdsa":
            raise InvalidSignature
        point.verify(signature, signed, ec.ECDSA(algorithm))
        return
    exponent, modulus = numbers
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    if kind == "rsassa_pkcs1v15":
        key.verify(signature, signed, padding.PKCS1v15(), algorithm)
    elif kind == "rsassa_pss":
        salt = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
        key.verify(signature, signed, salt, algorithm)
    else:
        raise InvalidSignature
