"""Certificates that sign images: reading them, and the rules that notation has for them.

Notary Project, "Signature specification", section "Certificate requirements", as pure checks
over a chain that is built here from the certificates that came with a signature:

1. The chain is complete and in order: each certificate is issued by the next, the last by itself.
2. Each is valid at the time asked for, and signed with SHA-2.
3. Keys are RSA of at least 2048 bits, or on P-256, P-384 or P-521.
4. The signing certificate may make signatures and nothing else: key usage ``digitalSignature``,
   critical; extended key usage, if there is one, ``codeSigning`` and none for other protocols.
5. The others are authorities: basic constraints critical, ``keyCertSign`` critical, path length kept.
6. No critical extension is unknown.
7. One certificate of the chain *is* a trusted one.

Revocation is not asked for: catena verifies offline. A publisher's certificate is revoked by a
new container policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import ClassVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from catena.containers.signature.result import SignatureRefused
from catena.errors import FormatError
from catena.formats.certificate import CERTIFICATE_FAULTS

MAX_CHAIN = 8
MAX_CERTIFICATES = 64
MAX_CERTIFICATE_FILE = 256 * 1024
MIN_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_SIGNING_ONLY = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign")  # fmt: skip
_OTHER_USES = frozenset(
    {
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.EMAIL_PROTECTION,
        ExtendedKeyUsageOID.TIME_STAMPING,
        ExtendedKeyUsageOID.OCSP_SIGNING,
    }
)
_KNOWN = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


class CertificateRefused(SignatureRefused):
    """A certificate that must not sign images. Subclasses say why."""

    code = "signing-certificate-refused"
    remedy = "Have the publisher sign with a certificate that is made for signing code."
    reached: ClassVar[int] = 8


class MalformedCertificate(FormatError):
    """Bytes that are no certificate."""

    code = "malformed-certificate"
    remedy = "Give X.509 certificates as PEM or DER."


class BrokenChain(CertificateRefused):
    """Certificates that do not follow from one another."""

    code = "certificate-chain-broken"


class CertificateOutOfDate(CertificateRefused):
    """A certificate that is expired, or not valid yet."""

    code = "certificate-out-of-date"
    remedy = "Have the publisher sign again with a certificate that is valid today."


class WeakCertificate(CertificateRefused):
    """A key that is too short or of another kind, or a certificate signed with a broken hash."""

    code = "certificate-weak"


class WrongKeyUsage(CertificateRefused):
    """A certificate whose key usage is not that of its place in the chain."""

    code = "certificate-key-usage"


class WrongExtendedKeyUsage(CertificateRefused):
    """A certificate for servers, mail or time stamps, not for signing code."""

    code = "certificate-extended-key-usage"


class WrongBasicConstraints(CertificateRefused):
    """An authority that signs itself, or an issuer that is no authority."""

    code = "certificate-basic-constraints"


class UnknownExtension(CertificateRefused):
    """A critical extension whose meaning is not known here."""

    code = "certificate-extension-unknown"


class UntrustedRoot(SignatureRefused):
    """A chain that does not pass through a trusted certificate."""

    code = "untrusted-root"
    remedy = "Check who signed the image; trust the root only if the publisher confirms it."


def parse_certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """Certificates of a file, PEM or concatenated DER. Raises ``MalformedCertificate``."""
    if len(data) > MAX_CERTIFICATE_FILE:
        raise MalformedCertificate("file of certificates is too large", got=f"{len(data)}")
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            found = x509.load_pem_x509_certificates(data)
        else:
            found = [x509.load_der_x509_certificate(one) for one in _sequences(data)]
    except CERTIFICATE_FAULTS as error:
        raise MalformedCertificate("file holds no certificates") from error
    if not 1 <= len(found) <= MAX_CERTIFICATES:
        raise MalformedCertificate(
            "file holds a wrong number of certificates",
            expected=f"1 to {MAX_CERTIFICATES}",
            got=f"{len(found)}",
        )
    return tuple(found)


def parse_chain(ders: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    """The certificates of a signature, signer first. Raises ``MalformedCertificate``."""
    if not 1 <= len(ders) <= MAX_CHAIN:
        raise MalformedCertificate(
            "signature has a wrong number of certificates",
            expected=f"1 to {MAX_CHAIN}",
            got=f"{len(ders)}",
        )
    try:
        chain = tuple(x509.load_der_x509_certificate(one) for one in ders)
        positive = all(one.serial_number > 0 for one in chain)
        for one in chain:
            one.subject.rfc4514_string()
    except CERTIFICATE_FAULTS as error:
        raise MalformedCertificate("signature carries something else than certificates") from error
    if not positive:
        raise MalformedCertificate("certificate has a serial number below 1")
    return chain


def is_root(certificate: x509.Certificate) -> bool:
    """Whether the certificate can stand in a trust store: an authority, or signed by itself."""
    return is_authority(certificate) or _issued_by(certificate, certificate)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate says that it may issue others."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, *CERTIFICATE_FAULTS):
        return False
    return constraints.value.ca


def check_chain(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: datetime
) -> None:
    """Hold the rules of the module's docstring at ``at``.

    Raises subclasses of ``CertificateRefused``, or ``UntrustedRoot``.
    """
    if not any(one == root for one in chain for root in roots):  # (7)
        raise UntrustedRoot(
            "the signer's certificates lead to no trusted root", got=_name(chain[-1])
        )
    for one, issuer in pairwise((*chain, chain[-1])):  # (1)
        if not _issued_by(one, issuer):
            raise BrokenChain("certificate is not issued by the next one", got=_name(one))
    for below, one in enumerate(chain):
        _check_validity(one, at)  # (2)
        _check_strength(one)  # (2, 3)
        try:
            _check_extensions(one, below)  # (4, 5, 6)
        except CERTIFICATE_FAULTS as error:
            raise UnknownExtension("certificate has malformed extensions", got=_name(one)) from error  # fmt: skip


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *CERTIFICATE_FAULTS):
        return False
    return True


def _check_validity(certificate: x509.Certificate, at: datetime) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= at <= last:
        raise CertificateOutOfDate(
            f"certificate {_name(certificate)} is not valid",
            expected=f"{first:%Y-%m-%dT%H:%MZ} to {last:%Y-%m-%dT%H:%MZ}",
            got=f"{at:%Y-%m-%dT%H:%MZ}",
        )


def _check_strength(certificate: x509.Certificate) -> None:
    try:
        key, algorithm = certificate.public_key(), certificate.signature_hash_algorithm
    except CERTIFICATE_FAULTS as error:
        raise WeakCertificate("certificate has an unknown algorithm") from error
    match key:
        case rsa.RSAPublicKey():
            strong = key.key_size >= MIN_RSA_BITS
        case ec.EllipticCurvePublicKey():
            strong = isinstance(key.curve, _CURVES)
        case _:
            strong = False
    if not strong or not isinstance(algorithm, _HASHES):
        raise WeakCertificate(
            f"certificate {_name(certificate)} is weak",
            expected="RSA of 2048 bits or a NIST curve, signed with SHA-2",
        )


def _check_extensions(certificate: x509.Certificate, below: int) -> None:
    extensions = certificate.extensions
    unknown = next((one for one in extensions if one.critical and one.oid not in _KNOWN), None)
    if unknown is not None:
        raise UnknownExtension(
            "certificate has a critical extension that is not known", got=unknown.oid.dotted_string
        )
    if below == 0:
        _check_signer(certificate, extensions)
    else:
        _check_authority(certificate, extensions, below)


def _check_signer(certificate: x509.Certificate, extensions: x509.Extensions) -> None:
    if is_authority(certificate):
        raise WrongBasicConstraints("an authority's certificate signs an image", got=_name(certificate))  # fmt: skip
    usage = _key_usage(extensions)
    if usage is None or not usage.digital_signature or any(getattr(usage, one) for one in _SIGNING_ONLY):  # fmt: skip
        raise WrongKeyUsage(
            f"certificate {_name(certificate)} has another key usage",
            expected="digitalSignature, critical, and nothing else",
        )
    try:
        uses = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.CODE_SIGNING not in uses or uses & _OTHER_USES:
        raise WrongExtendedKeyUsage(
            f"certificate {_name(certificate)} is for something else",
            expected="codeSigning",
            got=", ".join(sorted(one.dotted_string for one in uses))[:200],
        )


def _check_authority(
    certificate: x509.Certificate, extensions: x509.Extensions, below: int
) -> None:
    usage = _key_usage(extensions)
    if usage is None or not usage.key_cert_sign:
        raise WrongKeyUsage(
            f"issuer {_name(certificate)} has another key usage", expected="keyCertSign, critical"
        )
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        constraints = None
    length = constraints.value.path_length if constraints else None
    if not constraints or not constraints.critical or not constraints.value.ca:
        raise WrongBasicConstraints(f"issuer {_name(certificate)} is no authority")
    if length is not None and below - 1 > length:
        raise WrongBasicConstraints(
            f"too many authorities below {_name(certificate)}",
            expected=f"at most {length}",
            got=f"{below - 1}",
        )


def _key_usage(extensions: x509.Extensions) -> x509.KeyUsage | None:
    """The key usage, if it is there and critical."""
    try:
        found = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        return None
    return found.value if found.critical else None


def _name(certificate: x509.Certificate) -> str:
    return ascii(certificate.subject.rfc4514_string()[:120])


def _sequences(data: bytes) -> list[bytes]:
    """The DER SEQUENCEs that stand one after the other in ``data``."""
    found: list[bytes] = []
    while data:
        size = 2 if len(data) < 2 or data[1] < 0x80 else 2 + (data[1] & 0x7F)
        length = data[1] if size == 2 and len(data) > 1 else int.from_bytes(data[2:size], "big")
        end = size + length
        if data[0] != 0x30 or end > len(data) or len(found) == MAX_CERTIFICATES:
            raise ValueError("not a sequence of certificates")
        found.append(data[:end])
        data = data[end:]
    return found
