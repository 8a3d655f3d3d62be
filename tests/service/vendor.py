"""A TPM vendor for tests: its authorities and lists, made here, valid at the servers' time."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from catena.service.views import EndorsementItem, EndorsementRequest
from service.fixtures import START

YEAR = timedelta(days=365)


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Authority:
    """One authority; without ``above`` it is a root."""

    name: str | x509.Name
    above: Authority | None = None
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    serial: int = 100

    @property
    def subject(self) -> x509.Name:
        return self.name if isinstance(self.name, x509.Name) else name_of(self.name)

    @cached_property
    def certificate(self) -> x509.Certificate:
        issuer = self.above or self
        signs = {"key_cert_sign": True, "crl_sign": True}
        others = (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        )
        return (
            x509.CertificateBuilder(
                subject_name=self.subject,
                issuer_name=issuer.subject,
                public_key=self.key.public_key(),
                serial_number=self.serial,
                not_valid_before=START - YEAR,
                not_valid_after=START + YEAR,
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**signs, **dict.fromkeys(others, False)), critical=True)
            .sign(issuer.key, hashes.SHA256())
        )

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def crl(self, *serials: int, days: int = 0, encoding: Encoding = Encoding.DER) -> bytes:
        """A list of this day, good for a week."""
        at = START + timedelta(days=days)
        builder = x509.CertificateRevocationListBuilder(self.subject, at, at + timedelta(days=7))
        for serial in serials:
            entry = x509.RevokedCertificateBuilder(serial, at, [])
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(encoding)


def request(*contents: bytes, vouches: str = "vendor", source: str = "") -> EndorsementRequest:
    items = tuple(
        EndorsementItem(file=f"{number}.der", content=content)
        for number, content in enumerate(contents)
    )
    return EndorsementRequest(vouches=vouches, source=source, items=items)
