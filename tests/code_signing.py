"""Keys, certificates and envelopes that tests make: good ones, and each with one thing wrong."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from catena.formats.notation import Descriptor
from catena.keys.signer import PrivateKeySigner

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
IMAGE = "sha256:" + "ab" * 32
TARGET = Descriptor(
    "application/vnd.oci.image.manifest.v1+json", IMAGE, 349, {"org.example.version": "1.2.3"}
)
_FLAGS = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def key_usage(*flags):
    return x509.KeyUsage(**{name: name in flags for name in _FLAGS})


SIGNS = ((key_usage("digital_signature"), True),)
CODE_SIGNING = (*SIGNS, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False))


def authority(path_length=None):
    return (
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (key_usage("key_cert_sign"), True),
    )


def name(common_name="publisher", country="US", state="WA", organisation="Example"):
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, country),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, state),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


@cache
def new_key(kind="p256", number=0):
    """A key for each kind and number, made once."""
    del number
    match kind:
        case "rsa1024" | "rsa2048" | "rsa3072":
            return rsa.generate_private_key(65537, int(kind[3:]))
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "k256":
            return ec.generate_private_key(ec.SECP256K1())
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Issued:
    """A key and its certificate."""

    key: object
    certificate: x509.Certificate

    @property
    def signer(self):
        return PrivateKeySigner(self.key)


def issue(
    subject,
    issuer=None,
    *,
    key=None,
    extensions=CODE_SIGNING,
    start=NOW - timedelta(days=30),
    days=365,
    algorithm=None,
):
    """A certificate for ``subject``, by ``issuer`` or by itself."""
    key = key or new_key()
    builder = x509.CertificateBuilder(
        issuer.certificate.subject if issuer else subject,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        start,
        start + timedelta(days=days),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signed = builder.sign(issuer.key if issuer else key, algorithm or hashes.SHA256())
    return Issued(key, signed)


@dataclass(frozen=True)
class Publisher:
    """A signer with its chain; the last certificate is the root."""

    signer: PrivateKeySigner
    chain: tuple[x509.Certificate, ...]

    @property
    def root(self):
        return self.chain[-1]


@cache
def publisher(number=0):
    """Signer, intermediate and root."""
    root = issue(name(f"root {number}"), key=new_key("p256", number + 100), extensions=authority())
    middle = issue(
        name(f"middle {number}"), root, key=new_key("p256", number + 200), extensions=authority(0)
    )
    leaf = issue(name(f"publisher {number}"), middle, key=new_key("p256", number + 300))
    return Publisher(leaf.signer, (leaf.certificate, middle.certificate, root.certificate))
