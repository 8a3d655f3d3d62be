"""The CRL, read by OpenSSL's command line and by cryptography."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from catena.keys.hierarchy import KeyName
from catena.server import carotation
from catena.server.carotation import Plan
from catena.service.authorities import UnknownAuthority, key_id_of_certificate
from catena.service.crl import LIFETIME, CrlMoved
from catena.service.views import ApprovalRequest, FarewellRequest, RevocationRequest
from service.fixtures import Server, make_server
from service.revocable import *  # noqa: F403 - fixtures
from service.revocable import revoke
from swtpm import needs_swtpm

pytestmark = [needs_swtpm, pytest.mark.tpm]


def parsed(server: Server) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(server.service.crl.current().der)


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def openssl(*arguments: object) -> tuple[int, str]:
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


def verify(server: Server, pem: str, folder: Path) -> tuple[int, str]:
    """What OpenSSL says about a node's certificate, with the CRL."""
    (folder / "node.crt").write_text(pem)
    crl = parsed(server).public_bytes(Encoding.PEM)
    (folder / "chain.pem").write_bytes((server.folder / "ca.crt").read_bytes() + crl)
    return openssl(
        *("verify", "-crl_check", "-attime", int(server.clock().timestamp())),
        *("-CAfile", folder / "chain.pem", folder / "node.crt"),
    )


def test_an_empty_list_is_signed_and_says_when_the_next_one_comes(server, keys):
    crl = parsed(server)
    ca = keys.certificate(KeyName.CA)
    assert crl.is_signature_valid(ca.public_key())
    assert (crl.issuer, len(crl), number(crl)) == (ca.subject, 0, 1)
    assert crl.next_update_utc - crl.last_update_utc == LIFETIME
    found = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    key = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert found.key_identifier == key.key_identifier


def test_while_the_ca_is_exchanged_each_has_a_list_that_openssl_verifies_with_it(
    admitted, machine, tmp_path
):
    """A certificate of the old CA that is revoked after the switch is found in the old CA's list."""
    server = admitted
    minutes = timedelta(minutes=5)
    carotation.rotate(
        server.opened, Plan(switch_after=minutes, drop_after=timedelta(days=1)), server.clock
    )
    server.clock.pass_(minutes.total_seconds() - 5)
    certificates = [machine.attest(server.call).certificate]
    server.clock.pass_(10)
    certificates.append(machine.attest(server.call).certificate)
    believed = server.service.setting.authorities.believed(server.clock())
    assert len(believed) == 2

    def verified(pem: str, ca: x509.Certificate, crl: bytes) -> tuple[int, str]:
        (tmp_path / "node.crt").write_text(pem)
        listed = x509.load_der_x509_crl(crl)
        assert listed.is_signature_valid(ca.public_key())
        chain = ca.public_bytes(Encoding.PEM) + listed.public_bytes(Encoding.PEM)
        (tmp_path / "chain.pem").write_bytes(chain)
        return openssl(
            *("verify", "-crl_check", "-attime", int(server.clock().timestamp())),
            *("-CAfile", tmp_path / "chain.pem", tmp_path / "node.crt"),
        )

    for revoked in (False, True):
        for pem, ca in zip(certificates, believed, strict=True):
            crl = server.service.crl.of(key_id_of_certificate(ca)).der
            code, said = verified(pem, ca, crl)
            assert (code != 0) is revoked, said
            assert ("certificate revoked" in said) is revoked
        if not revoked:
            server.clock.pass_(1)
            revoke(server)
    assert server.service.crl.current().der == crl  # that of the one that issues
    server.clock.pass_(timedelta(days=1).total_seconds())
    with pytest.raises(UnknownAuthority):
        server.service.crl.of(key_id_of_certificate(believed[0]))
    server.service.crl.of(key_id_of_certificate(believed[1]))


def test_what_expired_is_forgotten_only_when_the_lists_of_both_have_told_it(admitted, machine):
    server = admitted
    plan = Plan(switch_after=timedelta(minutes=2), drop_after=timedelta(days=1))
    carotation.rotate(server.opened, plan, server.clock)
    server.clock.pass_(121)
    old, new = (
        key_id_of_certificate(one)
        for one in server.service.setting.authorities.believed(server.clock())
    )
    for one in (old, new):
        server.service.crl.of(one)
    revoke(server)
    for _ in range(3):  # the new one alone is asked for, far beyond the certificate's end
        server.clock.pass_(LIFETIME.total_seconds())
        server.service.crl.of(new)
    assert len(x509.load_der_x509_crl(server.service.crl.of(old).der)) == 1


def test_a_retired_node_loses_what_it_was_given(admitted, machine, tmp_path):
    pem = machine.attest(admitted.call).certificate
    assert verify(admitted, pem, tmp_path)[0] == 0
    admitted.clock.pass_(1)
    admitted.service.retirement.retire("n1", FarewellRequest(reason="sold"), "alice")
    transition, revocation = admitted.entries()[-2:]
    assert (transition.state, revocation.kind, revocation.reason) == (
        "retired",
        "revocation",
        "sold",
    )
    serial = x509.load_pem_x509_certificate(pem.encode()).serial_number
    assert f"{serial:x}" in revocation.certificates
    assert "certificate revoked" in verify(admitted, pem, tmp_path)[1]


def test_openssl_accepts_a_certificate_until_it_is_revoked(admitted, machine, tmp_path):
    pem = machine.attest(admitted.call).certificate
    code, said = verify(admitted, pem, tmp_path)
    assert code == 0, said
    revoke(admitted)
    code, said = verify(admitted, pem, tmp_path)
    assert code != 0
    assert "certificate revoked" in said
    admitted.service.approval.approve("n1", ApprovalRequest(), "alice")
    admitted.clock.pass_(1)
    code, said = verify(admitted, machine.attest(admitted.call).certificate, tmp_path)
    assert code == 0, said


def test_openssl_reads_number_reason_and_issuer(admitted, tmp_path):
    revoke(admitted, RevocationRequest(reason="leaked", cause="key-compromise"))
    (tmp_path / "list.crl").write_bytes(admitted.service.crl.current().der)
    arguments = ("-inform", "DER", "-in", tmp_path / "list.crl", "-CAfile")
    code, said = openssl("crl", *arguments, admitted.folder / "ca.crt", "-noout", "-text")
    assert code == 0
    for words in ("verify OK", "Version 2", "CRL Number", "Key Compromise", "Authority Key Ident"):
        assert words in said


def test_a_list_is_made_anew_on_change_and_before_it_expires_and_not_otherwise(admitted):
    first = admitted.service.crl.current()
    assert admitted.service.crl.current() == first
    (serial,) = revoke(admitted).certificates
    second = parsed(admitted)
    assert number(second) == first.number + 1
    revoked = second.get_revoked_certificate_by_serial_number(int(serial, 16))
    assert revoked.revocation_date_utc == admitted.clock()
    reason = revoked.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason == x509.ReasonFlags.privilege_withdrawn
    admitted.clock.pass_(LIFETIME.total_seconds() / 2)
    third = parsed(admitted)
    assert number(third) == first.number + 2
    assert third.last_update_utc < second.next_update_utc < third.next_update_utc


def test_an_expired_certificate_is_on_one_more_list_then_gone(admitted):
    revoke(admitted)
    assert len(parsed(admitted)) == 1
    admitted.clock.pass_(LIFETIME.total_seconds())  # the certificate lives for ten minutes
    assert len(parsed(admitted)) == 1
    admitted.clock.pass_(LIFETIME.total_seconds())
    assert len(parsed(admitted)) == 0
    with admitted.opened.database.snapshot() as rows:
        assert rows.certificates.revoked(since=None) == () or parsed(admitted)


def test_a_revoked_certificate_is_not_pruned_before_a_list_has_told_of_it(admitted):
    revoke(admitted)
    admitted.clock.pass_(7200)
    with admitted.opened.database.transaction() as rows:
        assert rows.certificates.prune(before=admitted.clock()) == 0
    assert len(parsed(admitted)) == 1


def test_numbers_go_on_after_a_restart(server):
    first = server.service.crl.current()
    server.reopen()
    assert server.service.crl.current() == first
    server.clock.pass_(LIFETIME.total_seconds())
    assert server.service.crl.current().number == first.number + 1


def test_all_replicas_serve_the_same_bytes(replicas):
    first, second = replicas
    assert first.service.crl.current() == second.service.crl.current()
    revoke(second)
    assert first.service.crl.current() == second.service.crl.current()
    assert len(parsed(first)) > 0


def test_a_revocation_while_a_list_is_made_is_on_the_next(replicas):
    first, second = replicas
    made = first.service.crl._made

    def slow(*arguments):
        first.service.crl._made = made
        new = made(*arguments)
        revoke(second)
        return new

    first.service.crl._made = slow
    first.service.crl.current()
    assert len(parsed(second)) > 0


def test_a_list_that_is_always_overtaken_is_refused(server, monkeypatch):
    monkeypatch.setattr("catena.store.crls.Crls.replace", lambda *_: False)
    with pytest.raises(CrlMoved):
        server.service.crl.current()


@pytest.fixture(params=[None, "http://ca.acme.example/pki/"])
def public(request, tmp_path, keys, booted_tpm) -> Iterator[Server]:
    """A server with and without an address that everybody knows."""
    roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
    server = make_server(tmp_path / "public", keys, roots, public_url=request.param)
    yield server
    server.opened.close()


def test_certificates_name_the_list_where_an_address_is_configured(public, machine):
    public.import_references(machine.boot)
    public.admit(machine)
    pem = machine.attest(public.call).certificate
    points = [
        name.value
        for extension in x509.load_pem_x509_certificate(pem.encode()).extensions
        if isinstance(extension.value, x509.CRLDistributionPoints)
        for point in extension.value
        for name in point.full_name
    ]
    known = public.opened.config.public_url
    own = public.service.setting.authorities.issuing(public.clock()).signer.key_id
    assert points == ([] if known is None else [f"http://ca.acme.example/pki/v1/crl/{own}"])
