from __future__ import annotations

import dataclasses
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from tpm2_pytss.constants import TPM2_ALG, TPMA_NV
from tpm2_pytss.types import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

from appraise.forged import key
from catena.appraise.endorsement import EndorsementKind
from catena.appraise.endorsement_refusal import (
    RevokedEkCertificate,
    StaleRevocationList,
    UntrustedEkIssuer,
)
from catena.appraise.tpmidentity import UNKNOWN_TPM
from catena.formats.nodeapi import EnrollChallenge
from catena.service.endorsements import (
    AmbiguousEndorsement,
    FixedEndorsement,
    NoSuchEndorsement,
    TamperedEndorsement,
)
from catena.service.pages import PageRequest
from catena.service.references import REFRESH
from service.fixtures import listed
from service.vendor import Authority, request
from swtpm import needs_swtpm


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority("Acme TPM Root CA")


@pytest.fixture(scope="module")
def middle(root) -> Authority:
    return Authority("Acme TPM EK CA 1", above=root)


def test_a_root_and_an_intermediate_are_told_apart_and_logged(server, root, middle):
    told = server.service.endorsements.accept(
        request(middle.der, root.der, source="acme.example, 2026-05"), "alice"
    )
    kinds = {one.name: (one.type, one.vouches) for one in told.accepted}
    assert kinds == {
        "acme-tpm-root-ca": ("root", "vendor"),
        "acme-tpm-ek-ca-1": ("intermediate", None),
    }
    entries = [entry for entry in server.entries() if entry.kind == "endorsement"]
    assert {(entry.name, entry.type, entry.vouches, entry.active) for entry in entries} == {
        ("acme-tpm-root-ca", "root", "vendor", True),
        ("acme-tpm-ek-ca-1", "intermediate", "", True),
    }
    assert {server.name(entry.actor) for entry in entries} == {"alice"}
    assert all("acme.example, 2026-05" in entry.summary() for entry in entries)


def test_what_is_accepted_is_shown_with_its_provenance(server, root):
    endorsements = server.service.endorsements
    endorsements.accept(request(root.der, source="the vendor's page"), "alice")
    (found,) = listed(endorsements)
    assert found.sha256 == hashlib.sha256(root.der).hexdigest()
    assert (found.file, found.source, found.accepted_by) == (
        "0.der",
        "the vendor's page",
        "alice",
    )
    assert (found.state, found.subject) == ("valid", "CN=Acme TPM Root CA")
    for name in ("acme-tpm-root-ca", found.sha256[:8], found.sha256):
        detail = endorsements.show(name)
        assert x509.load_pem_x509_certificate(detail.pem.encode()) == root.certificate
    for name in ("acme", found.sha256[:3], ""):
        with pytest.raises(NoSuchEndorsement):
            endorsements.show(name)


def test_two_of_one_name_are_told_apart_by_digest(server):
    endorsements = server.service.endorsements
    endorsements.accept(request(Authority("Twin").der, Authority("Twin").der), "alice")
    with pytest.raises(AmbiguousEndorsement):
        endorsements.show("twin")
    for one in listed(endorsements):
        assert endorsements.show(one.sha256).endorsement == one


def test_an_import_that_is_repeated_changes_and_logs_nothing(server, root):
    server.service.endorsements.accept(request(root.der), "alice")
    before = server.kinds()
    again = server.service.endorsements.accept(request(root.der), "bob")
    assert (again.accepted, [one.accepted_by for one in again.known]) == ((), ["alice"])
    assert server.kinds() == before


def test_what_is_of_no_use_is_told_and_the_rest_accepted(server, root, middle):
    weak = root.certificate.public_bytes(Encoding.DER)[:-1]
    leaf = _end_entity(root)
    stranger = Authority("Stranger").crl()
    told = server.service.endorsements.accept(request(weak, leaf, root.der, stranger), "alice")
    assert [one.name for one in told.accepted] == ["acme-tpm-root-ca"]
    assert {one.file: one.code for one in told.refused} == {
        "0.der": "ek-certificate-malformed",
        "1.der": "endorsement-useless",
        "3.der": "crl-issuer-unknown",
    }
    assert all(one.remedy for one in told.refused)
    assert server.kinds().count("endorsement") == 1


def _end_entity(root: Authority) -> bytes:
    certificate = x509.CertificateBuilder(
        subject_name=x509.Name([]),
        issuer_name=root.certificate.subject,
        public_key=key(3).public_key(),
        serial_number=9,
        not_valid_before=root.certificate.not_valid_before_utc,
        not_valid_after=root.certificate.not_valid_after_utc,
    ).sign(root.key, hashes.SHA256())
    # Version 3 without extensions: the library writes that as it is.
    return certificate.public_bytes(Encoding.DER)


def test_a_withdrawn_root_no_longer_counts_and_may_come_back(server, root):
    endorsements = server.service.endorsements
    endorsements.accept(request(root.der), "alice")
    assert len(endorsements.roots().roots) == 1
    assert endorsements.withdraw("acme-tpm-root-ca", "bob").name == "acme-tpm-root-ca"
    assert endorsements.roots().roots == ()
    assert listed(endorsements) == ()
    entry = server.entries()[-1]
    assert (entry.active, server.name(entry.actor)) == (False, "bob")
    assert "withdrawn" in entry.summary()
    with pytest.raises(NoSuchEndorsement):
        endorsements.withdraw("acme-tpm-root-ca", "bob")
    endorsements.accept(request(root.der, vouches="enterprise"), "carol")
    (back,) = endorsements.roots().roots
    assert back.kind is EndorsementKind.ENTERPRISE


@needs_swtpm
def test_what_server_toml_names_is_listed_and_not_withdrawn(trusting):
    endorsements = trusting.service.endorsements
    fixed = listed(endorsements)
    assert len(fixed) == 2
    assert {(one.source, one.accepted_at, one.vouches) for one in fixed} == {
        ("server.toml", None, "software")
    }
    with pytest.raises(FixedEndorsement):
        endorsements.withdraw(fixed[0].sha256, "alice")
    again = endorsements.accept(
        request(*(_der(endorsements.show(one.sha256).pem) for one in fixed)), "alice"
    )
    assert (again.accepted, len(again.known)) == ((), 2)


@needs_swtpm
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_what_server_toml_names_comes_before_the_others_and_once(trusting, limit):
    endorsements = trusting.service.endorsements
    fixed = listed(endorsements)
    endorsements.accept(request(Authority("Acme").der), "alice")
    everything = listed(endorsements)
    assert everything[:2] == fixed
    with trusting.opened.database.transaction() as rows:
        (row,) = rows.endorsements.list()
        # It was accepted before it came into server.toml.
        rows.endorsements.put(_replaced(row, sha256=fixed[0].sha256, name="older"))
    found, cursor = [], None
    for _ in range(4):
        page = endorsements.page(PageRequest(limit=limit, cursor=cursor))
        found, cursor = [*found, *page.items], page.cursor
        if cursor is None:
            break
    assert tuple(found) == everything


def _der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def test_another_replicas_change_is_noticed(server, root):
    endorsements = server.service.endorsements
    assert endorsements.roots().roots == ()
    other = type(endorsements)(server.service.setting)
    other.accept(request(root.der), "alice")
    assert endorsements.roots().roots == ()
    server.clock.pass_(REFRESH.total_seconds())
    assert len(endorsements.roots().roots) == 1


def test_an_edited_row_stops_enrolment(server, root):
    endorsements = server.service.endorsements
    endorsements.accept(request(root.der), "alice")
    with server.opened.database.transaction() as rows:
        (row,) = rows.endorsements.list()
        rows.endorsements.put(_replaced(row, document=row.document.replace(b'"sig"', b'"SIG"')))
    with pytest.raises(TamperedEndorsement):
        endorsements.roots()


def test_a_row_of_another_certificate_stops_enrolment(server, root, middle):
    """Sealed once, but kept under a digest or type that it does not have."""
    endorsements = server.service.endorsements
    endorsements.accept(request(root.der, middle.der), "alice")
    with server.opened.database.transaction() as rows:
        one, two = rows.endorsements.list()
        rows.endorsements.put(_replaced(one, document=two.document))
    with pytest.raises(TamperedEndorsement):
        endorsements.roots()


def _replaced(row, **changes):
    return dataclasses.replace(row, **changes)


# Revocation lists ----------------------------------------------------------------------------


def test_a_newer_list_takes_the_place_of_the_older(server, root):
    endorsements = server.service.endorsements
    told = endorsements.accept(request(root.crl(5), root.der), "alice")
    assert [one.type for one in told.accepted] == ["root", "crl"]
    endorsements.accept(request(root.crl(5, 6, days=1)), "alice")
    (found,) = (one for one in listed(endorsements) if one.type == "crl")
    assert (found.name, found.revoked) == ("crl-acme-tpm-root-ca", 2)
    changes = [entry.active for entry in server.entries() if entry.kind == "endorsement"]
    assert changes == [True, True, True, False]


def test_an_older_list_is_refused(server, root):
    endorsements = server.service.endorsements
    told = endorsements.accept(request(root.der, root.crl(days=1), root.crl(days=3)), "alice")
    assert [one.code for one in told.refused] == ["crl-older"]
    told = endorsements.accept(request(root.crl(days=2)), "alice")
    assert [one.code for one in told.refused] == ["crl-older"]


# A real TPM ----------------------------------------------------------------------------------


def vendor_files(tpm) -> list[bytes]:
    return [
        x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
        for path in tpm.root_ca_pem_paths
    ]


@needs_swtpm
@pytest.mark.tpm
def test_a_real_tpm_enrols_once_its_vendor_is_imported(server, machine, booted_tpm):
    enrolment = machine.enrolment()
    with pytest.raises(UntrustedEkIssuer):
        server.call("/v1/enroll", enrolment, EnrollChallenge)
    told = server.service.endorsements.accept(
        request(*vendor_files(booted_tpm), vouches="software"), "alice"
    )
    assert sorted(one.type for one in told.accepted) == ["intermediate", "root"]
    machine.enrol(server.call)
    shown = server.service.nodes.show(machine.node_id)
    assert shown.endorsed_by.startswith("software:")
    assert (shown.tpm.type, shown.tpm.model) == ("virtual", "swtpm")
    assert shown.tpm.tolerances == ()
    entry = server.entries()[-1]
    assert (entry.kind, entry.tpm) == ("enrolment", shown.tpm)


@needs_swtpm
@pytest.mark.tpm
def test_the_intermediate_may_come_from_the_tpm_itself(server, running_machine, booted_tpm):
    """As Intel's on-die authorities do: it is in NV memory, and only the root is imported.

    Both TPMs have certificates of one vendor. The chain lies across two indices, padded.
    """
    root, issuer = sorted(vendor_files(booted_tpm), key=_is_root, reverse=True)
    server.service.endorsements.accept(request(root, vouches="software"), "alice")
    with pytest.raises(UntrustedEkIssuer):
        server.call("/v1/enroll", running_machine.enrolment(), EnrollChallenge)
    write_index(running_machine.tpm, 0x01C00100, root + issuer[:300])
    write_index(running_machine.tpm, 0x01C00101, issuer[300:] + b"\xff" * 40)
    sent = running_machine.enrolment().ek_certificates
    assert sent[1:] == (root, issuer)
    running_machine.enrol(server.call)
    assert server.service.nodes.show(running_machine.node_id).tpm.tolerances == ()


def write_index(tpm, index: int, content: bytes) -> None:
    """Define and fill an NV index that anybody may read, as a vendor's tool does."""
    flags = TPMA_NV.OWNERWRITE | TPMA_NV.AUTHWRITE | TPMA_NV.AUTHREAD | TPMA_NV.OWNERREAD
    public = TPMS_NV_PUBLIC(
        nvIndex=index,
        nameAlg=TPM2_ALG.SHA256,
        attributes=flags | TPMA_NV.NO_DA,
        dataSize=len(content),
    )
    handle = tpm._esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=public))
    for offset in range(0, len(content), 512):
        part = content[offset : offset + 512]
        tpm._esys.nv_write(handle, part, offset, auth_handle=handle)
    tpm._esys.tr_close(handle)


def _is_root(der: bytes) -> bool:
    certificate = x509.load_der_x509_certificate(der)
    return certificate.subject == certificate.issuer


@needs_swtpm
@pytest.mark.tpm
def test_the_vendors_list_refuses_its_tpm(server, machine, booted_tpm):
    """The vendor's issuing key makes the list; its certificate is made anew, so that it may."""
    leaf = x509.load_der_x509_certificate(machine.enrolment().ek_certificates[0])
    folder = booted_tpm.root_ca_pem_paths[1].parent
    signer = load_pem_private_key((folder / "signkey.pem").read_bytes(), None)
    issuer = Authority(leaf.issuer, key=signer)
    server.service.endorsements.accept(request(issuer.der, vouches="software"), "alice")

    told = server.service.endorsements.accept(request(issuer.crl(leaf.serial_number + 1)), "alice")
    assert told.refused == ()
    server.call("/v1/enroll", machine.enrolment(), EnrollChallenge)
    server.clock.pass_(8 * 24 * 3600)
    with pytest.raises(StaleRevocationList):
        server.call("/v1/enroll", machine.enrolment(), EnrollChallenge)
    assert server.entries()[-1].code == "ek-crl-stale"
    server.service.endorsements.accept(request(issuer.crl(leaf.serial_number, days=8)), "alice")
    with pytest.raises(RevokedEkCertificate):
        server.call("/v1/enroll", machine.enrolment(), EnrollChallenge)
    assert server.entries()[-1].code == "ek-certificate-revoked"


@needs_swtpm
@pytest.mark.tpm
def test_policies_judge_by_the_tpm_and_its_quoted_firmware(trusting, machine):
    trusting.admit(machine)
    machine.attest(trusting.call)
    facts = trusting.service.nodes.explain(machine.node_id).facts
    shown = trusting.service.nodes.show(machine.node_id)
    assert (facts["tpm_type"], facts["tpm_vendor"]) == ("virtual", "id:00001014")
    assert facts["tpm_tolerances"] == []
    assert facts["tpm_firmware"] == shown.firmware
    assert len(shown.firmware.split(".")) == 4
    assert facts["tpm_firmware_number"] >> 48 == int(shown.firmware.split(".")[0])
    assert shown.firmware.startswith(facts["tpm_certified_version"])


@needs_swtpm
@pytest.mark.tpm
def test_a_node_of_before_gets_its_tpms_description_when_it_enrols_again(trusting, machine):
    machine.enrol(trusting.call)
    with trusting.opened.database.transaction() as rows:
        node = rows.nodes.get(machine.node_id)
        rows.nodes.describe_tpm(node.id, node.ek_root, None)
    assert trusting.service.nodes.show(machine.node_id).tpm == UNKNOWN_TPM
    machine.enrol(trusting.call)
    assert trusting.service.nodes.show(machine.node_id).tpm.model == "swtpm"
    entry = trusting.entries()[-1]
    assert (entry.kind, entry.again, entry.tpm.model) == ("enrolment", False, "swtpm")
    before = trusting.kinds()
    machine.enrol(trusting.call)
    assert trusting.kinds() == before
