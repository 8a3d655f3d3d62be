"""Taking back what a node was given: by a person, by a verdict, against other replicas."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from catena.formats.nodeapi import AttestResult
from catena.service.conclusion import RacedAttestation
from catena.service.crl import REASONS
from catena.service.nodes import UnknownNode
from catena.service.revocation import Loss
from catena.service.views import ApprovalRequest, ExposedSecret, RevocationCause
from catena.store.errors import NodeMoved
from service.fixtures import Server, put_secret
from service.revocable import *  # noqa: F403 - fixtures
from service.revocable import STOLEN, revoke
from swtpm import needs_swtpm

pytestmark = [needs_swtpm, pytest.mark.tpm]


def tampered(machine) -> dict[str, object]:
    """Evidence that the TPM signed, about PCR values that it did not quote."""
    values = machine.tpm.read_pcrs(machine.bank, tuple(range(16)))
    return {"pcrs": (bytes(32), *values[1:])}


def valid(server: Server, machine) -> list[str]:
    with server.opened.database.snapshot() as rows:
        return [one.serial for one in rows.certificates.valid(machine.node_id, now=server.clock())]


def test_a_revocation_takes_state_certificates_and_secrets_in_one_step(admitted, machine):
    machine.attest(admitted.call)
    serials = valid(admitted, machine)
    view = revoke(admitted)
    assert (view.name, view.changed, sorted(view.certificates)) == ("n1", True, sorted(serials))
    assert view.secrets == (ExposedSecret(name="db-password", version=1),)
    assert valid(admitted, machine) == []
    node = admitted.node("n1")
    assert (node.state, node.state_reason, node.readmitted) == ("untrusted", "node-revoked", False)
    (entry,) = [one for one in admitted.entries() if one.kind == "revocation"]
    assert (entry.reason, admitted.name(entry.actor)) == (STOLEN.reason, "alice")
    assert sorted(entry.certificates) == sorted(serials)
    assert entry.secrets == ("db-password version 1",)


def test_afterwards_an_attestation_gives_nothing_and_says_why(admitted, machine):
    revoke(admitted)
    for _ in range(2):
        admitted.clock.pass_(1)
        result = machine.attest(admitted.call)
        assert (result.verdict, result.state) == ("trusted", "untrusted")
        assert (result.certificate, result.secrets) == (None, ())
        assert [one.code for one in result.reasons] == ["node-revoked"]
        assert "approve" in result.reasons[0].remedy
    assert admitted.service.nodes.show("n1").state_reason == "node-revoked"


def test_an_untrusted_verdict_does_not_hide_that_the_node_is_revoked(admitted, machine):
    revoke(admitted)
    assert machine.attest(admitted.call, **tampered(machine)).verdict == "untrusted"
    admitted.clock.pass_(1)
    assert [one.code for one in machine.attest(admitted.call).reasons] == ["node-revoked"]


def test_a_readmitted_node_gets_a_new_certificate_and_its_old_ones_stay_revoked(admitted, machine):
    before = revoke(admitted).certificates
    admitted.service.approval.approve("n1", ApprovalRequest(), "alice")
    admitted.clock.pass_(1)
    result = machine.attest(admitted.call)
    assert (result.state, len(result.secrets)) == ("trusted", 1)
    assert len(valid(admitted, machine)) == 1
    assert not set(before) & set(valid(admitted, machine))


def test_a_second_revocation_changes_and_logs_nothing(admitted):
    revoke(admitted)
    kinds = admitted.kinds()
    again = revoke(admitted)
    assert (again.changed, again.certificates, again.secrets) == (False, (), ())
    assert admitted.kinds() == kinds


def test_a_readmission_that_was_not_used_is_taken_back(admitted, machine):
    revoke(admitted)
    admitted.service.approval.approve("n1", ApprovalRequest(), "alice")
    assert revoke(admitted).changed
    admitted.clock.pass_(1)
    assert machine.attest(admitted.call).certificate is None


def test_a_node_that_nobody_approved_can_be_revoked(trusting, machine):
    machine.enrol(trusting.call)
    assert trusting.service.revocations.revoke(machine.node_id, STOLEN, "alice").changed
    trusting.clock.pass_(1)
    assert machine.attest(trusting.call).reasons[-1].code == "node-revoked"


def test_an_unknown_node_cannot(trusting):
    with pytest.raises(UnknownNode):
        revoke(trusting)


def test_an_untrusted_verdict_revokes_what_the_node_was_given(admitted, machine):
    (serial,) = valid(admitted, machine)
    assert machine.attest(admitted.call, **tampered(machine)).state == "untrusted"
    assert valid(admitted, machine) == []
    verdict, revocation = admitted.entries()[-2:]
    assert (verdict.kind, revocation.kind, revocation.actor) == ("verdict", "revocation", "server")
    assert revocation.reason == f"untrusted verdict: {verdict.reasons[0].code}"
    assert (revocation.certificates, revocation.secrets) == ((serial,), ("db-password version 1",))
    (exposed,) = admitted.service.secrets.rotation()
    assert (exposed.name, exposed.node_name) == ("db-password", "n1")
    admitted.clock.pass_(1)
    machine.attest(admitted.call, **tampered(machine))
    assert admitted.kinds()[-1] == "verdict"  # nothing more to take


def test_a_new_version_takes_a_secret_off_the_rotation_list(admitted, machine):
    assert admitted.service.secrets.rotation() == ()
    revoke(admitted)
    (one,) = admitted.service.secrets.rotation()
    assert (one.name, one.version, one.node, one.node_name) == (
        "db-password",
        1,
        machine.node_id,
        "n1",
    )
    assert one.released_at < one.since
    put_secret(admitted.service, "db-password", "web")
    assert admitted.service.secrets.rotation() == ()


def test_a_readmission_does_not(admitted, machine):
    revoke(admitted)
    since = admitted.service.secrets.rotation()[0].since
    admitted.service.approval.approve("n1", ApprovalRequest(), "alice")
    admitted.clock.pass_(5)
    assert machine.attest(admitted.call).secrets
    assert [one.since for one in admitted.service.secrets.rotation()] == [since]
    admitted.clock.pass_(5)
    assert revoke(admitted).secrets  # it was given out again
    assert admitted.service.secrets.rotation()[0].since > since


def test_what_does_not_fit_one_entry_is_in_several(admitted):
    many = tuple(f"{number:x}" for number in range(130))
    secrets = tuple(ExposedSecret(name=f"s{number}", version=1) for number in range(70))
    entries = Loss(many, secrets).entries(admitted.node("n1"), "x", "server", admitted.clock())
    assert [len(one.certificates) for one in entries] == [64, 64, 2]
    assert [len(one.secrets) for one in entries] == [64, 6, 0]
    admitted.service.setting.journal.record(*entries)
    assert [one.kind for one in admitted.entries()[-3:]] == ["revocation"] * 3


def test_threads_that_attest_while_a_person_revokes_leave_no_valid_certificate(admitted, machine):
    many = [machine.evidence(machine.nonce(admitted.call)) for _ in range(6)]
    start = threading.Barrier(7)

    def attest(evidence) -> None:
        start.wait(10)
        admitted.service.attestation.attest(
            msgspec.json.decode(msgspec.json.encode(evidence), type=type(evidence))
        )

    def take() -> None:
        start.wait(10)
        revoke(admitted)

    with ThreadPoolExecutor(7) as threads:
        ends = [threads.submit(attest, one) for one in many] + [threads.submit(take)]
    for end in ends[:-1]:
        assert isinstance(end.exception(), RacedAttestation | None)
    ends[-1].result()
    assert valid(admitted, machine) == []
    assert admitted.node("n1").state == "untrusted"


def between(server: Server, act) -> None:
    """Do ``act`` once, between what ``server`` decides next and its effect."""
    journal, record = server.service.setting.journal, server.service.setting.journal.append

    def recorded(*entries):
        receipts = record(*entries)
        journal.append = record
        act()
        return receipts

    journal.append = recorded


def test_a_revocation_at_another_replica_stops_an_attestation_that_was_decided(replicas, machine):
    first, second = replicas
    evidence = machine.evidence(machine.nonce(first.call))
    between(first, lambda: revoke(second))
    with pytest.raises(RacedAttestation):
        first.call("/v1/attest", evidence, AttestResult)
    assert valid(first, machine) == []
    first.clock.pass_(1)
    assert machine.attest(first.call).reasons[-1].code == "node-revoked"


def test_a_certificate_that_another_replica_issues_meanwhile_is_revoked_too(replicas, machine):
    first, second = replicas
    between(first, lambda: machine.attest(second.call))
    before = valid(first, machine)
    view = revoke(first)
    assert set(before) < set(view.certificates)
    assert valid(first, machine) == []


def test_an_approval_that_was_decided_before_a_revocation_does_not_undo_it(replicas):
    first, second = replicas
    between(first, lambda: revoke(second))
    with pytest.raises(NodeMoved):
        first.service.approval.approve("n1", ApprovalRequest(role="db"), "bob")
    assert first.node("n1").state == "untrusted"


def test_replicas_that_attest_and_revoke_at_once_leave_no_valid_certificate(replicas, machine):
    first, second = replicas
    for _ in range(4):
        evidence = machine.evidence(machine.nonce(first.call))
        start = threading.Barrier(2)

        def attest(evidence=evidence, start=start) -> None:
            start.wait(10)
            first.call("/v1/attest", evidence, AttestResult)

        def take(start=start) -> None:
            start.wait(10)
            revoke(second)

        with ThreadPoolExecutor(2) as threads:
            ends = threads.submit(attest), threads.submit(take)
        assert isinstance(ends[0].exception(), RacedAttestation | None)
        ends[1].result()
        assert valid(first, machine) == []
        first.service.approval.approve("n1", ApprovalRequest(), "alice")
        first.clock.pass_(1)
        assert machine.attest(first.call).state == "trusted"
        first.clock.pass_(1)


def test_every_cause_has_its_reason_code():
    assert set(REASONS) == set(RevocationCause.__args__)
