"""Certificate revocation lists of the cluster CA (RFC 5280, section 5).

Version 2, complete for everything that the CA issued: no delta, no indirect entries, no partition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from catena.keys.signer import Signer, signature_hash, x509_key


@dataclass(frozen=True, slots=True)
class RevokedCertificate:
    """One entry (sections 5.1.2.6 and 5.3.1)."""

    serial: int
    at: datetime
    reason: x509.ReasonFlags


def issue_crl(
    ca: Signer,
    ca_cert: x509.Certificate,
    revoked: Iterable[RevokedCertificate],
    *,
    number: int,
    this_update: datetime,
    next_update: datetime,
) -> bytes:
    """A signed CRL in DER. ``number`` must be above that of the CA's CRL before (section 5.2.3)."""
    ca_key = ca_cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca_cert.subject)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_key), critical=False
        )
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for one in revoked:
        builder = builder.add_revoked_certificate(_entry(one))
    return builder.sign(x509_key(ca), signature_hash(ca)).public_bytes(Encoding.DER)


def _entry(one: RevokedCertificate) -> x509.RevokedCertificate:
    return (
        x509.RevokedCertificateBuilder()
        .serial_number(one.serial)
        .revocation_date(one.at)
        .add_extension(x509.CRLReason(one.reason), critical=False)
        .build()
    )
