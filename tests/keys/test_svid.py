from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from catena.keys import authority, svid
from catena.keys.authority import issue_cluster_ca, issue_node_certificate
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key
from catena.keys.svid import NodeCertificates, UncopiableExtension, UnnameableNode

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
DOMAIN = "acme.example"
CA = PrivateKeySigner(generate_key(KeyAlgorithm.ECDSA_P256))
CA_CERT = issue_cluster_ca(CA, organisation="Acme", now=NOW)
ISSUER = NodeCertificates.under(CA, CA_CERT, DOMAIN)


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def extensions(certificate: x509.Certificate) -> dict[str, object]:
    return {one.oid.dotted_string: (one.critical, one.value) for one in certificate.extensions}


@given(
    name=st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,230}[a-z0-9])?", fullmatch=True),
    start=st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)),  # noqa: DTZ001
    seconds=st.integers(60, 86_400),
    seed=st.integers(1, 2**200),
)
def test_it_is_the_certificate_that_the_authority_issues(name, start, seconds, seed):
    key = ec.derive_private_key(seed, ec.SECP256R1()).public_key()
    when = {"not_before": start.replace(tzinfo=UTC), "lifetime": timedelta(seconds=seconds)}
    if len(name) > 64 - len("system:node:"):  # RFC 5280: ub-common-name
        with pytest.raises(ValueError, match="length"):
            issue_node_certificate(CA, CA_CERT, key, trust_domain=DOMAIN, node_name=name, **when)
        with pytest.raises(UnnameableNode):
            ISSUER.issue(spki(key), node_name=name, **when)
        return
    slow = issue_node_certificate(CA, CA_CERT, key, trust_domain=DOMAIN, node_name=name, **when)
    issued = ISSUER.issue(spki(key), node_name=name, **when)
    fast = x509.load_der_x509_certificate(issued.der)
    assert (issued.serial, issued.not_after) == (fast.serial_number, fast.not_valid_after_utc)
    fast.verify_directly_issued_by(CA_CERT)
    assert extensions(fast) == extensions(slow)
    for field in (
        "version",
        "issuer",
        "subject",
        "not_valid_before_utc",
        "not_valid_after_utc",
        "signature_algorithm_oid",
    ):
        assert getattr(fast, field) == getattr(slow, field)
    assert fast.public_key() == key
    # The same bytes, but for what is random: nothing depends on how a reader decodes them.
    sizes = {len(one.tbs_certificate_bytes) for one in (fast, slow)}
    assert max(sizes) - min(sizes) <= 4


def test_serial_numbers_are_random_and_positive():
    key = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
    issued = [
        ISSUER.issue(key, node_name="n1", not_before=NOW, lifetime=timedelta(minutes=10))
        for _ in range(50)
    ]
    assert len({one.serial for one in issued}) == 50
    assert all(0 < one.serial < 2**160 for one in issued)


def test_another_kind_of_key_is_no_key_of_a_node():
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    with pytest.raises(UncopiableExtension):
        ISSUER.issue(spki(key), node_name="n1", not_before=NOW, lifetime=timedelta(minutes=10))


def test_an_extension_that_may_be_a_nodes_own_is_not_copied(monkeypatch):
    leaf = authority._leaf

    def marked(*arguments):
        return leaf(*arguments).add_extension(x509.OCSPNoCheck(), critical=False)

    monkeypatch.setattr(authority, "_leaf", marked)
    with pytest.raises(UncopiableExtension):
        svid.NodeCertificates.under(CA, CA_CERT, DOMAIN)
