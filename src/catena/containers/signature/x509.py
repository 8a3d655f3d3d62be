"""Certificates that speak for a publisher (RFC 5280, section 6, and Fulcio's extensions).

``verify_identity`` proves, in this order:

1. one link after the other, from the leaf to a root that the policy lists: names, signatures with
   SHA-2, ``basicConstraints``, path length, ``keyCertSign``; an unknown critical extension, or any
   name constraint, refuses the link;
2. the leaf may sign: ``digitalSignature``, and ``codeSigning`` where there is an extended key usage;
3. every one of the policy's subject, subject alternative name and OIDC issuer is the leaf's;
4. with transparency logs in the policy: one of them promises when it saw this signature;
5. the whole chain was valid at that time, or without a log is valid *now*.

Not proven: that no certificate was revoked; without a log, that the signature was made while the
certificate was valid (a key that leaked later looks the same); with a log, that the entry
really is in it (no inclusion proof is read) and that a Fulcio certificate was logged (no SCT is).
A root is trusted as it is listed, self-signed or not.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from catena.containers.signature import identities
from catena.containers.signature.key import VerificationKey, key_of
from catena.containers.signature.refusals import (
    CertificateNotValid,
    OtherIdentity,
    UnloggedSignature,
    UntrustedCertificate,
)
from catena.errors import FormatError
from catena.formats import rekor
from catena.formats.certificate import CERTIFICATE_FAULTS
from catena.formats.rekor import Promise
from catena.keys.signer import UnusableKey

MAX_CHAIN = 8
MAX_INTERMEDIATES = 16

_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_UTF8_STRING = 0x0C
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512, type(None))  # None: Ed25519
_JUDGED = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }
)
"""Extensions that may be critical: judged here, or without effect on the path."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a publisher's certificates have in common: see ``formats.containerpolicy``."""

    roots: tuple[x509.Certificate, ...]
    subject: str
    san: str
    issuer: str
    logs: tuple[VerificationKey, ...] = ()

    def __str__(self) -> str:
        """What the policy asked for, in one line."""
        asked = (("subject", self.subject), ("san", self.san), ("issuer", self.issuer))
        return ", ".join(f"{name} {value}" for name, value in asked if value)


@dataclass(frozen=True, slots=True)
class Presented:
    """A leaf, what may link it to a root, and what logs say; *untrusted*.

    ``signature`` and ``sha256`` (of what was signed) are what a log must have seen.
    """

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    key: VerificationKey
    promises: tuple[Promise, ...]
    signature: bytes
    sha256: str


def present(
    certificates: Sequence[bytes], promises: Sequence[Promise], signature: bytes, sha256: str
) -> Presented:
    """Read what came with a signature: DER certificates, leaf first. Raises ``FormatError``."""
    if len(certificates) > MAX_INTERMEDIATES:
        raise FormatError("too many certificates", expected=f"at most {MAX_INTERMEDIATES}")
    leaf, *others = map(parse_certificate, certificates)
    try:
        key = key_of(leaf.public_key())
    except CERTIFICATE_FAULTS as error:
        raise UnusableKey("certificate has a key of another kind") from error
    return Presented(leaf, tuple(others), key, tuple(promises), signature, sha256)


def parse_certificate(der: bytes) -> x509.Certificate:
    """Read a DER certificate, nothing behind it. Raises ``FormatError``."""
    try:
        return x509.load_der_x509_certificate(der)
    except CERTIFICATE_FAULTS as error:
        raise FormatError("not a certificate") from error


def pem_certificates(pem: str) -> tuple[x509.Certificate, ...]:
    """Read one or more PEM certificates. Raises ``FormatError``."""
    try:
        return tuple(x509.load_pem_x509_certificates(pem.encode()))
    except CERTIFICATE_FAULTS as error:
        raise FormatError("no PEM certificates") from error


def verify_identity(presented: Presented, identity: Identity, now: datetime) -> datetime | None:
    """Prove that the leaf is the identity's; when a log saw the signature, or None without logs.

    Raises ``UntrustedCertificate``, ``OtherIdentity``, ``UnloggedSignature`` or
    ``CertificateNotValid``, for the steps of this module.
    """
    try:
        chain = _chain(presented, identity.roots)  # (1)
        _check_leaf(presented.leaf)  # (2)
        _check_identity(presented.leaf, identity)  # (3)
    except CERTIFICATE_FAULTS as error:
        raise UntrustedCertificate("certificate cannot be judged", got=str(error)[:80]) from error
    logged = _logged(presented, identity.logs) if identity.logs else None  # (4)
    _check_validity(chain, logged or now)  # (5)
    return logged


def _chain(presented: Presented, roots: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """From the leaf to a root. Each step takes the first issuer that fits, and none twice."""
    chain, left = [presented.leaf], list(presented.intermediates)
    while presented.leaf not in roots and len(chain) < MAX_CHAIN:
        last = chain[-1]
        root = next((one for one in roots if _issued(one, last, len(chain) - 1)), None)
        if root is not None:
            return [*chain, root]
        link = next((one for one in left if _issued(one, last, len(chain) - 1)), None)
        if link is None:
            break
        left.remove(link)
        chain.append(link)
    if presented.leaf in roots:
        return chain
    raise UntrustedCertificate(
        "certificate does not lead to a root of the policy",
        expected=", ".join(_name(one) for one in roots)[:200],
        got=_name(chain[-1])[:200],
    )


def _issued(issuer: x509.Certificate, issued: x509.Certificate, below: int) -> bool:
    """Whether ``issuer`` may issue and has issued a certificate with ``below`` authorities under it."""
    if issuer.subject != issued.issuer or not isinstance(issued.signature_hash_algorithm, _HASHES):
        return False
    if not _may_issue(issuer, below):
        return False
    try:
        issued.verify_directly_issued_by(issuer)
    except (InvalidSignature, *CERTIFICATE_FAULTS):
        return False
    return True


def _may_issue(issuer: x509.Certificate, below: int) -> bool:
    extensions = _extensions(issuer)
    if ExtensionOID.NAME_CONSTRAINTS in extensions:
        return False
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        return False
    if constraints.path_length is not None and below > constraints.path_length:
        return False
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    if isinstance(usage, x509.KeyUsage) and not usage.key_cert_sign:
        return False
    return _signs_code(extensions)


def _check_leaf(leaf: x509.Certificate) -> None:
    extensions = _extensions(leaf)
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    if isinstance(usage, x509.KeyUsage) and not usage.digital_signature:
        raise UntrustedCertificate("certificate is not for signatures")
    if not _signs_code(extensions):
        raise UntrustedCertificate("certificate is not for signing code")


def _signs_code(extensions: dict[x509.ObjectIdentifier, x509.ExtensionType]) -> bool:
    """Without an extended key usage a certificate is for everything (RFC 5280, 4.2.1.12)."""
    usage = extensions.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if not isinstance(usage, x509.ExtendedKeyUsage):
        return True
    return bool(
        {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage)
    )


def _extensions(
    certificate: x509.Certificate,
) -> dict[x509.ObjectIdentifier, x509.ExtensionType]:
    """By OID. Raises ``UntrustedCertificate`` for a critical one that nobody here judges."""
    found = {one.oid: one for one in certificate.extensions}
    unknown = [one.oid for one in found.values() if one.critical and one.oid not in _JUDGED]
    if unknown:
        raise UntrustedCertificate(
            "certificate has a critical extension that is not understood",
            got=unknown[0].dotted_string[:80],
        )
    return {oid: one.value for oid, one in found.items()}


def _check_identity(leaf: x509.Certificate, identity: Identity) -> None:
    whole = (leaf.subject.rfc4514_string(),)
    if identity.subject.startswith(identities.PREFIX):
        try:
            whole = (identities.match_identity(leaf.subject, (identity.subject,)),)
        except identities.WrongIdentity as error:
            raise OtherIdentity(error.message, expected=error.expected, got=error.got) from error
    for name, asked, got in (
        ("subject", identity.subject, whole),
        ("subject alternative name", identity.san, tuple(_alternative_names(leaf))),
        ("issuer", identity.issuer, tuple(_oidc_issuers(leaf))),
    ):
        if asked and asked not in got:
            raise OtherIdentity(
                f"certificate has another {name}",
                expected=asked[:200],
                got=ascii(", ".join(got))[:200],
            )


def _alternative_names(leaf: x509.Certificate) -> Iterator[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for kind in (x509.RFC822Name, x509.DNSName, x509.UniformResourceIdentifier):
        yield from names.get_values_for_type(kind)


def _oidc_issuers(leaf: x509.Certificate) -> Iterator[str]:
    """Fulcio's issuer; the newer extension is a DER UTF8String and counts alone if it is there."""
    raw = {
        one.oid: one.value.value
        for one in leaf.extensions
        if isinstance(one.value, x509.UnrecognizedExtension)
    }
    if (newer := raw.get(_ISSUER_V2)) is not None:
        short = len(newer) >= 2 and newer[0] == _UTF8_STRING and newer[1] == len(newer) - 2 < 0x80
        if not short:
            raise ValueError("issuer extension is no short UTF8String")
        yield newer[2:].decode()
    elif (older := raw.get(_ISSUER_V1)) is not None:
        yield older.decode()


def _logged(presented: Presented, logs: Iterable[VerificationKey]) -> datetime:
    """When a log of the policy saw this signature by this certificate."""
    keys = {key.id: key for key in logs}
    for promise in presented.promises:
        key = keys.get(promise.log_id)
        if key is None or not key.holds(promise.signature, promise.signed()):
            continue
        if _is_about(promise, presented):
            return datetime.fromtimestamp(promise.integrated_time, UTC)
    raise UnloggedSignature("no log of the policy has seen this signature")


def _is_about(promise: Promise, presented: Presented) -> bool:
    """Whether the entry is of exactly this signature; entries of other kinds are about others."""
    try:
        entry = rekor.parse_entry(promise.body)
        verifier = _pem_der(entry.verifier)
    except FormatError:
        return False
    return (
        entry.sha256 == presented.sha256
        and entry.signature == presented.signature
        and verifier == presented.leaf.public_bytes(Encoding.DER)
    )


def _pem_der(pem: bytes) -> bytes:
    """What is inside one PEM block, whatever it is."""
    lines = [line for line in pem.splitlines() if line and not line.startswith(b"-----")]
    try:
        return base64.b64decode(b"".join(lines), validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError("log entry holds no PEM") from error


def _check_validity(chain: Sequence[x509.Certificate], at: datetime) -> None:
    for one in chain:
        if not one.not_valid_before_utc <= at <= one.not_valid_after_utc:
            raise CertificateNotValid(
                f"certificate of {_name(one)[:120]} is not valid at that time",
                expected=f"{one.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ} to {one.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
                got=f"{at:%Y-%m-%dT%H:%M:%SZ}",
            )


def _name(certificate: x509.Certificate) -> str:
    """Printable and bounded: it may have come from anybody."""
    return ascii(certificate.subject.rfc4514_string() or "no subject")[1:-1][:200]
