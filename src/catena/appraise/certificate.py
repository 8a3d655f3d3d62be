"""The fields of a vendor's certificate that decide about an endorsement (RFC 5280, clause 4).

Bytes are walked strictly first (``formats.der``), then decoded with asn1crypto, field by field, so
that one odd field does not hide the others. What is malformed and still has only one reading is
named in ``malformations``; ``tolerance`` decides whether that is put up with. All of it is
*untrusted* until ``has_signed`` links it to an accepted root.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from asn1crypto import keys, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from catena.errors import FormatError
from catena.formats import der as der_format
from catena.formats import distinguished
from catena.formats.der import Departure
from catena.formats.distinguished import Attribute
from catena.formats.ekattributes import EkAttributes, read_ek_attributes

RSA_BITS = range(2048, 8193)
MAX_EXPONENT = 2**32
"""Beyond these an RSA key is weak, or costs more to verify with than a stranger may cause."""

_CURVES: dict[str, ec.EllipticCurve] = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1()}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_SELF_SIGNED_HASHES = {**_HASHES, "sha1": hashes.SHA1()}  # noqa: S303 - it vouches for nothing
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


class Malformation(StrEnum):
    """What is wrong with the encoding of a certificate that can be read all the same."""

    NV_PADDING = "nv-padding"
    SET_ORDER = "set-order"
    SERIAL_ENCODING = "serial-encoding"
    OAEP_LABEL = "oaep-label"


@dataclass(frozen=True, slots=True)
class Signed:
    """Bytes, a signature over them, and its scheme and hash (empty for one that is not known)."""

    content: bytes
    signature: bytes
    scheme: str
    hash: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate; ``subject`` and ``issuer`` are raw DER names, ``der`` is without padding.

    ``key_numbers`` is (exponent, modulus) or (curve bits, x, y), None for another kind or
    size of key. ``attributes`` is what a subject alternative name says of a TPM.
    """

    der: bytes
    subject: bytes
    issuer: bytes
    subject_name: tuple[Attribute, ...]
    issuer_name: tuple[Attribute, ...]
    serial: int
    not_before: datetime
    not_after: datetime
    key_numbers: tuple[int, ...] | None
    is_authority: bool
    path_length: int | None
    key_usage: frozenset[str]
    extended_key_usage: frozenset[str]
    unknown_critical: tuple[str, ...]
    has_name_constraints: bool
    attributes: EkAttributes
    malformations: tuple[Malformation, ...]
    signed: Signed

    @property
    def subject_text(self) -> str:
        """The subject as one line for people."""
        return distinguished.text(self.subject_name)

    @property
    def issuer_text(self) -> str:
        """The issuer as one line for people."""
        return distinguished.text(self.issuer_name)

    @property
    def is_self_issued(self) -> bool:
        """Whether it names itself as its issuer (RFC 5280, 3.2)."""
        return self.subject == self.issuer

    @property
    def is_self_signed(self) -> bool:
        """Whether its own key signed it: what makes a root, once somebody accepts it.

        That proves nothing (RFC 5280, 6.1.1 d), so SHA-1 will do: vendors' older roots have it.
        """
        return self.is_self_issued and self._made(self.signed, _SELF_SIGNED_HASHES)

    def has_signed(self, other: Signed) -> bool:
        """Whether this certificate's key made that signature, with an accepted hash."""
        return self._made(other, _HASHES)

    def _made(self, other: Signed, accepted: Mapping[str, hashes.HashAlgorithm]) -> bool:
        algorithm = accepted.get(other.hash)
        if algorithm is None or self.key_numbers is None:
            return False
        try:
            _verify(self.key_numbers, other, algorithm)
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            return False
        return True


def parse_certificate(der: bytes) -> Certificate:
    """Read a certificate, with or without the padding that TPM memory leaves behind it.

    Raises ``ValueError`` for bytes that are no certificate, or have more than one reading.
    """
    try:
        bare = _without_padding(der)
        walked = der_format.departures(bare)
        certificate = x509.Certificate.load(bare, strict=True)
        _check_structure(certificate)
        malformed = _malformations(certificate, walked, padded=len(bare) != len(der))
        return _read(bare, certificate, malformed)
    except FormatError as error:
        raise ValueError(str(error)) from error
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


def _check_structure(certificate: Any) -> None:  # noqa: ANN401  asn1crypto has no types
    """RFC 5280, 4.1.1.2, 4.1.2.1 and 4.2: nothing is said twice, or in two ways."""
    body = certificate["tbs_certificate"]
    if body["version"].native != "v3":
        raise ValueError("not a certificate of version 3")
    if body["signature"].dump() != certificate["signature_algorithm"].dump():
        raise ValueError("two signature algorithms")
    kinds = [one["extn_id"].dotted for one in body["extensions"]]
    if len(set(kinds)) != len(kinds):
        raise ValueError("an extension is there twice")


def _malformations(
    certificate: Any,  # noqa: ANN401
    walked: tuple[tuple[Departure, int], ...],
    *,
    padded: bool,
) -> tuple[Malformation, ...]:
    """The names for what is malformed. Raises ``ValueError`` for what has no name."""
    body = certificate["tbs_certificate"]
    found = {Malformation.NV_PADDING} if padded else set()
    integers = [at for departure, at in walked if departure is Departure.INTEGER_PADDING]
    inner = [
        departure
        for one in body["extensions"]
        if one["extn_id"].native in _KNOWN_EXTENSIONS
        for departure, _ in der_format.departures(bytes(one["extn_value"]))
    ]
    if len(integers) > 1 or Departure.INTEGER_PADDING in inner:
        raise ValueError("a number in more bytes than it needs")
    if integers and not _is_padded(body["serial_number"]):
        raise ValueError("a number in more bytes than it needs")
    if integers or body["serial_number"].native <= 0:
        found.add(Malformation.SERIAL_ENCODING)
    if Departure.SET_ORDER in {*inner, *(departure for departure, _ in walked)}:
        found.add(Malformation.SET_ORDER)
    if body["subject_public_key_info"]["algorithm"]["algorithm"].native == "rsaes_oaep":
        found.add(Malformation.OAEP_LABEL)
    return tuple(sorted(found))


def _is_padded(serial: Any) -> bool:  # noqa: ANN401
    """Whether it is this number that the walk came across: there was only one."""
    return bool(der_format.departures(serial.dump()))


def _read(
    der: bytes,
    certificate: Any,  # noqa: ANN401
    malformations: tuple[Malformation, ...],
) -> Certificate:
    body = certificate["tbs_certificate"]
    constraints = certificate.basic_constraints_value
    usage = certificate.key_usage_value
    extended = certificate.extended_key_usage_value
    subject, issuer = body["subject"].dump(), body["issuer"].dump()
    return Certificate(
        der=der,
        subject=subject,
        issuer=issuer,
        subject_name=distinguished.attributes(subject),
        issuer_name=distinguished.attributes(issuer),
        serial=body["serial_number"].native,
        not_before=instant(body["validity"]["not_before"].native),
        not_after=instant(body["validity"]["not_after"].native),
        key_numbers=_key_numbers(body["subject_public_key_info"]),
        is_authority=bool(constraints is not None and constraints["ca"].native),
        path_length=None if constraints is None else constraints["path_len_constraint"].native,
        key_usage=frozenset(usage.native) if usage is not None else frozenset(),
        extended_key_usage=frozenset(item.dotted for item in extended or ()),
        unknown_critical=tuple(sorted(certificate.critical_extensions - _KNOWN_EXTENSIONS)),
        has_name_constraints=certificate.name_constraints_value is not None,
        attributes=_attributes(body),
        malformations=malformations,
        signed=signed_part(
            body, certificate["signature_algorithm"], certificate["signature_value"]
        ),
    )


def signed_part(body: Any, algorithm: Any, signature: Any) -> Signed:  # noqa: ANN401
    """What the issuer of a certificate or revocation list signed, and how."""
    scheme, name = _signature_kind(algorithm)
    return Signed(body.dump(), signature.native, scheme, name)


def _attributes(body: Any) -> EkAttributes:  # noqa: ANN401
    """Read by hand: asn1crypto insists on one string type for what vendors write in two."""
    values = [
        bytes(one["extn_value"])
        for one in body["extensions"]
        if one["extn_id"].native == "subject_alt_name"
    ]
    return read_ek_attributes(values[0]) if values else EkAttributes()


def instant(value: object) -> datetime:
    """An instant; DER also has times without a zone and years that Python cannot hold."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("a validity that is no instant")
    return value


def _key_numbers(spki: Any) -> tuple[int, ...] | None:  # noqa: ANN401
    """The key itself, whatever algorithm identifier labels an RSA key."""
    algorithm = spki["algorithm"]["algorithm"].native
    if algorithm in ("rsa", "rsaes_oaep", "rsassa_pss"):
        numbers = keys.RSAPublicKey.load(bytes(spki["public_key"]), strict=True)
        exponent, modulus = numbers["public_exponent"].native, numbers["modulus"].native
        sound = modulus > 0 and modulus.bit_length() in RSA_BITS and 1 < exponent < MAX_EXPONENT
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


def _verify(numbers: tuple[int, ...], signed: Signed, algorithm: hashes.HashAlgorithm) -> None:
    if len(numbers) == 3:
        bits, x, y = numbers
        curve = next(curve for curve in _CURVES.values() if curve.key_size == bits)
        point = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
        if signed.scheme != "ecdsa":
            raise InvalidSignature
        point.verify(signed.signature, signed.content, ec.ECDSA(algorithm))
        return
    exponent, modulus = numbers
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    if signed.scheme == "rsassa_pkcs1v15":
        key.verify(signed.signature, signed.content, padding.PKCS1v15(), algorithm)
    elif signed.scheme == "rsassa_pss":
        salt = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
        key.verify(signed.signature, signed.content, salt, algorithm)
    else:
        raise InvalidSignature
