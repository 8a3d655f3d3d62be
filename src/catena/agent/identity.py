"""The node's identity: a fresh P-256 key, its CSR, and the check of what the CA made of it.

The key is made for one attestation and replaced at the next. It lives in memory, and in tmpfs
once a certificate was issued for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from catena.agent.client import WrongTime
from catena.errors import FormatError, Refusal
from catena.formats.certificate import CERTIFICATE_FAULTS


class ForeignCertificate(Refusal):
    """The certificate was not issued by the cluster CA that this node knows."""

    code = "foreign-certificate"
    remedy = "Check that `ca` is the cluster CA of this trust service."


class MismatchedCertificate(Refusal):
    """The certificate is for another key than the one this node has just made."""

    code = "mismatched-certificate"
    remedy = "The trust service confuses nodes; see its log."


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A new private key and the PKCS#10 request for it (DER, empty subject)."""

    key: ec.EllipticCurvePrivateKey
    csr: bytes

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo, DER: what the quote binds."""
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate (PEM, leaf first) with its private key (PKCS#8 PEM)."""

    certificate: bytes
    private_key: bytes = field(repr=False)
    not_after: datetime


def new_request() -> KeyRequest:
    """A fresh key; the CA alone decides about names, so the subject stays empty."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    return KeyRequest(key=key, csr=csr.public_bytes(Encoding.DER))


def accept_certificate(
    request: KeyRequest, certificate: str, authorities: Sequence[x509.Certificate], *, now: datetime
) -> Identity:
    """Take a certificate only if it is ours, from a CA that counts, and valid at ``now``."""
    try:
        leaf = x509.load_pem_x509_certificates(certificate.encode())[0]
        public_key = leaf.public_key()
    except CERTIFICATE_FAULTS as error:
        raise FormatError("the issued certificate is not PEM") from error
    if public_key != request.key.public_key():
        raise MismatchedCertificate("the issued certificate is for another key")
    if not any(_is_issued_by(leaf, authority) for authority in authorities):
        raise ForeignCertificate("the issued certificate is not from the cluster CA")
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise WrongTime(
            "the issued certificate is not valid now",
            expected=f"{leaf.not_valid_before_utc:%FT%TZ} to {leaf.not_valid_after_utc:%FT%TZ}",
            got=f"{now:%FT%TZ}",
        )
    return Identity(
        certificate=certificate.encode(),
        private_key=request.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        not_after=leaf.not_valid_after_utc,
    )


def _is_issued_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (InvalidSignature, *CERTIFICATE_FAULTS):
        return False
    return True
