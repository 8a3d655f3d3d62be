from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from stand_in import DAY, ClusterCa

from catena.agent import trust
from catena.agent.client import WrongTime
from catena.agent.identity import (
    ForeignCertificate,
    MismatchedCertificate,
    accept_certificate,
    new_request,
)
from catena.errors import FormatError

NOW = datetime.now(UTC)
"""When the tests were collected; a long run gets to them minutes later."""


def test_request_proves_possession_and_names_nobody():
    request = new_request()
    csr = x509.load_der_x509_csr(request.csr)
    assert csr.is_signature_valid
    assert csr.subject == x509.Name([])
    assert not list(csr.extensions)
    assert csr.public_key() == request.key.public_key()


def test_every_request_has_a_fresh_key():
    assert new_request().spki != new_request().spki


def test_certificate_for_this_key_from_the_cluster_ca_is_accepted(cluster_ca):
    request = new_request()
    pem = cluster_ca.node_certificate(request.key.public_key(), not_before=NOW)
    identity = accept_certificate(request, pem, (cluster_ca.certificate,), now=NOW)
    assert identity.certificate == pem.encode()
    key = load_pem_private_key(identity.private_key, None)
    assert key.public_key() == request.key.public_key()
    assert identity.not_after > NOW


def test_private_key_is_not_shown_by_accident(cluster_ca):
    request = new_request()
    pem = cluster_ca.node_certificate(request.key.public_key(), not_before=NOW)
    assert "PRIVATE" not in repr(
        accept_certificate(request, pem, (cluster_ca.certificate,), now=NOW)
    )


def test_certificate_for_another_key_is_refused(cluster_ca):
    pem = cluster_ca.node_certificate(new_request().key.public_key())
    with pytest.raises(MismatchedCertificate):
        accept_certificate(new_request(), pem, (cluster_ca.certificate,), now=NOW)


def test_certificate_of_another_ca_is_refused(cluster_ca):
    request = new_request()
    pem = ClusterCa(NOW - DAY).node_certificate(request.key.public_key(), not_before=NOW)
    with pytest.raises(ForeignCertificate):
        accept_certificate(request, pem, (cluster_ca.certificate,), now=NOW)


def test_leaf_behind_another_certificate_is_not_looked_for(cluster_ca):
    request = new_request()
    pem = cluster_ca.node_certificate(request.key.public_key(), not_before=NOW)
    root = cluster_ca.certificate.public_bytes(Encoding.PEM).decode()
    with pytest.raises(MismatchedCertificate):
        accept_certificate(request, root + pem, (cluster_ca.certificate,), now=NOW)


@pytest.mark.parametrize("at", [NOW - DAY, NOW + DAY])
def test_certificate_outside_its_time_is_refused(cluster_ca, at):
    request = new_request()
    pem = cluster_ca.node_certificate(request.key.public_key(), timedelta(minutes=10), NOW)
    with pytest.raises(WrongTime):
        accept_certificate(request, pem, (cluster_ca.certificate,), now=at)


@pytest.mark.parametrize("pem", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_something_else_than_a_certificate_is_malformed(cluster_ca, pem):
    with pytest.raises(FormatError):
        accept_certificate(new_request(), pem, (cluster_ca.certificate,), now=NOW)


def test_ca_that_is_no_certificate_is_malformed():
    with pytest.raises(FormatError):
        trust.parse(b"no certificate")
