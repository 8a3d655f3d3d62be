"""X.509 certificates: firmware roots, the cluster CA, and what the CA issues.

=================  =========================  =================================================
certificate        signed by                  profile
=================  =========================  =================================================
PK, KEK, db        itself                     RSA-2048; what UEFI accepts (UEFI 2.10, 32.4)
cluster CA         itself                     P-256, path length 0
node               cluster CA                 X.509-SVID: one SPIFFE URI, client and server auth
server             cluster CA                 DNS names and addresses, server auth
=================  =========================  =================================================

Every signature is made through a ``Signer``. Dates are arguments. Node certificates carry the
names that kubelets need (``CN=system:node:NAME, O=system:nodes``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from catena.errors import UsageError
from catena.ids import NodeName
from catena.keys.signer import Signer, signature_hash, x509_key

ROOT_LIFETIME = timedelta(days=20 * 365)
CLOCK_SKEW = timedelta(minutes=1)
"""Nodes' clocks may be behind by this much when they receive a certificate."""


class NamelessServer(UsageError):
    """A server certificate without any name would match no client."""

    code = "nameless-server"
    remedy = "Give at least one DNS name or address."


def issue_firmware_root(
    signer: Signer, *, name: str, organisation: str, now: datetime
) -> x509.Certificate:
    """The self-signed certificate of PK, KEK or db. Firmware ignores its dates."""
    usage = _usage(digital_signature=True, certificates=True)
    return _self_signed(signer, _root_name(organisation, name), now, usage, path_length=None)


def issue_cluster_ca(signer: Signer, *, organisation: str, now: datetime) -> x509.Certificate:
    """The self-signed certificate of the cluster CA; it signs leaves and CRLs only."""
    usage = _usage(certificates=True, revocations=True)
    subject = _root_name(organisation, "cluster CA")
    return _self_signed(signer, subject, now, usage, path_length=0)


def issue_node_certificate(
    ca: Signer,
    ca_cert: x509.Certificate,
    public_key: CertificatePublicKeyTypes,
    *,
    trust_domain: str,
    node_name: NodeName,
    not_before: datetime,
    lifetime: timedelta,
    crl_url: str | None = None,
) -> x509.Certificate:
    """A node's short-lived identity (SPIFFE X.509-SVID, sections 2 and 4).

    ``crl_url`` is where its revocation would be told (RFC 5280, section 4.2.1.13).
    """
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node_name}"),
        ]
    )
    identity = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}/node/{node_name}")
    purposes = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
    builder = _leaf(ca_cert, subject, public_key, [identity], purposes)
    if crl_url is not None:
        builder = builder.add_extension(_crl_at(crl_url), critical=False)
    return _sign(_dated(builder, not_before, lifetime), ca)


def issue_server_certificate(
    ca: Signer,
    ca_cert: x509.Certificate,
    public_key: CertificatePublicKeyTypes,
    *,
    names: Sequence[str | IPv4Address | IPv6Address],
    not_before: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """The trust server's certificate. Raises ``NamelessServer``."""
    if not names:
        raise NamelessServer("server certificate without a name")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(names[0])[:64])])
    alternatives = [
        x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name) for name in names
    ]
    builder = _leaf(ca_cert, subject, public_key, alternatives, (ExtendedKeyUsageOID.SERVER_AUTH,))
    return _sign(_dated(builder, not_before, lifetime), ca)


def _crl_at(url: str) -> x509.CRLDistributionPoints:
    place = x509.UniformResourceIdentifier(url)
    point = x509.DistributionPoint([place], relative_name=None, reasons=None, crl_issuer=None)
    return x509.CRLDistributionPoints([point])


def _root_name(organisation: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{organisation} {name}"),
        ]
    )


def _self_signed(
    signer: Signer,
    subject: x509.Name,
    now: datetime,
    usage: x509.KeyUsage,
    *,
    path_length: int | None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(signer.public_key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(signer.public_key), critical=False)
    )
    return _sign(_dated(builder, now, ROOT_LIFETIME), signer)


def _leaf(
    ca_cert: x509.Certificate,
    subject: x509.Name,
    public_key: CertificatePublicKeyTypes,
    alternatives: Sequence[x509.GeneralName],
    purposes: Sequence[x509.ObjectIdentifier],
) -> x509.CertificateBuilder:
    authority_key = ca_cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca_cert.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_key),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _dated(
    builder: x509.CertificateBuilder, start: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return builder.not_valid_before(start - CLOCK_SKEW).not_valid_after(start + lifetime)


def _sign(builder: x509.CertificateBuilder, signer: Signer) -> x509.Certificate:
    return builder.sign(x509_key(signer), signature_hash(signer))


def _usage(
    *, digital_signature: bool = False, certificates: bool = False, revocations: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=revocations,
        encipher_only=False,
        decipher_only=False,
    )
