from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from catena.ids import NodeName
from catena.keys import authority
from catena.keys.authority import NamelessServer
from catena.keys.hierarchy import KeyName

START = datetime(2026, 6, 1, tzinfo=UTC)
LIFETIME = timedelta(minutes=10)
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()


@pytest.fixture
def node_certificate(keys):
    return authority.issue_node_certificate(
        keys.signer(KeyName.CA),
        keys.certificate(KeyName.CA),
        KEY,
        trust_domain="example.org",
        node_name=NodeName("n1"),
        not_before=START,
        lifetime=LIFETIME,
    )


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def test_node_certificate_is_an_svid_and_a_kubelet_name(node_certificate):
    names = extension(node_certificate, x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://example.org/node/n1")]
    assert node_certificate.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
    assert node_certificate.public_key() == KEY


def test_node_certificate_is_a_leaf_for_both_ends_of_tls(node_certificate, keys):
    constraints = extension(node_certificate, x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = extension(node_certificate, x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    purposes = list(extension(node_certificate, x509.ExtendedKeyUsage).value)
    assert purposes == [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    issuer = extension(keys.certificate(KeyName.CA), x509.SubjectKeyIdentifier).value
    named = extension(node_certificate, x509.AuthorityKeyIdentifier).value
    assert named.key_identifier == issuer.digest


def test_node_certificate_lives_as_long_as_asked(node_certificate):
    assert node_certificate.not_valid_after_utc == START + LIFETIME
    assert node_certificate.not_valid_before_utc == START - authority.CLOCK_SKEW


def test_serial_numbers_differ(keys, node_certificate):
    again = authority.issue_server_certificate(
        keys.signer(KeyName.CA),
        keys.certificate(KeyName.CA),
        KEY,
        names=["localhost"],
        not_before=START,
        lifetime=LIFETIME,
    )
    assert again.serial_number != node_certificate.serial_number


def test_path_from_ca_verifies_under_an_independent_verifier(keys):
    certificate = authority.issue_server_certificate(
        keys.signer(KeyName.CA),
        keys.certificate(KeyName.CA),
        KEY,
        names=["trust.example.org", ip_address("10.0.2.100")],
        not_before=START,
        lifetime=LIFETIME,
    )
    store = Store([keys.certificate(KeyName.CA)])
    builder = PolicyBuilder().store(store).time(START + timedelta(minutes=1))
    for name in (x509.DNSName("trust.example.org"), x509.IPAddress(ip_address("10.0.2.100"))):
        builder.build_server_verifier(name).verify(certificate, [])
    purposes = list(extension(certificate, x509.ExtendedKeyUsage).value)
    assert purposes == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_server_without_a_name_is_refused(keys):
    with pytest.raises(NamelessServer):
        authority.issue_server_certificate(
            keys.signer(KeyName.CA),
            keys.certificate(KeyName.CA),
            KEY,
            names=[],
            not_before=START,
            lifetime=LIFETIME,
        )


def test_cluster_ca_signs_leaves_only(keys):
    ca = keys.certificate(KeyName.CA)
    assert extension(ca, x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    usage = extension(ca, x509.KeyUsage).value
    assert usage.key_cert_sign
    assert usage.crl_sign
    assert not usage.digital_signature
