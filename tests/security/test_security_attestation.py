"""Attacks on attestation: replays, other nodes' names, other nodes' secrets, the way back."""

from __future__ import annotations

import pytest

from catena.appraise.quote import ForeignSigner
from catena.audit.log import LogUnwritable
from catena.errors import Refusal
from catena.formats.nodeapi import AttestResult
from catena.service.views import ApprovalRequest
from catena.store.nodes import Clock
from catena.tpm.device import open_tpm
from catena.tpm.failure import ForeignSeal
from service.fixtures import put_secret
from service.machine import Machine
from swtpm import needs_swtpm, software_tpm

pytestmark = [needs_swtpm, pytest.mark.tpm]


@pytest.fixture(scope="module")
def second_tpm(tmp_path_factory, tpm_ca, boot):
    """Another machine of the same maker with the same boot."""
    with software_tpm(tmp_path_factory.mktemp("second"), ca=tpm_ca) as tpm:
        with open_tpm(tpm.tcti) as opened:
            Machine(opened, boot).measure()
        yield tpm


@pytest.fixture
def stranger(second_tpm, boot):
    with open_tpm(second_tpm.tcti) as tpm:
        yield Machine(tpm, boot)


def attest_with(server, evidence) -> AttestResult:
    return server.call("/v1/attest", evidence, AttestResult)


def grants(server) -> int:
    return sum(entry.kind in {"certificate", "secret-release"} for entry in server.entries())


def test_evidence_is_worth_one_attestation(admitted, machine):
    evidence = machine.evidence(machine.nonce(admitted.call))
    assert attest_with(admitted, evidence).state == "trusted"
    before, node = grants(admitted), admitted.node("n1")
    admitted.clock.pass_(1)
    with pytest.raises(Refusal):
        attest_with(admitted, evidence)
    assert grants(admitted) == before
    assert admitted.node("n1") == node


def test_evidence_in_anothers_name_is_refused_and_gives_nothing(admitted, machine, stranger):
    """A node of the fleet asks, with its own TPM, for what another node would get."""
    stranger.enrol(admitted.call)
    stranger.node_id = machine.node_id
    before, node = grants(admitted), admitted.node("n1")
    with pytest.raises(ForeignSigner):
        stranger.attest(admitted.call)
    assert grants(admitted) == before
    assert admitted.node("n1") == node
    assert admitted.entries()[-1].kind == "denial"


def test_a_node_never_receives_another_nodes_secret(admitted, machine, stranger):
    put_secret(admitted.service, "db-only", "db")
    stranger.enrol(admitted.call)
    approval = ApprovalRequest(name="n2", role="db")
    admitted.service.approval.approve(stranger.node_id, approval, "admin")
    theirs = stranger.attest(admitted.call).secrets
    ours = machine.attest(admitted.call).secrets
    assert [sealed.name for sealed in theirs] == ["db-only"]
    assert [sealed.name for sealed in ours] == ["db-password"]
    with pytest.raises(ForeignSeal):
        stranger.open(ours[0])


def test_two_machines_share_neither_name_nor_certificate(admitted, stranger):
    stranger.enrol(admitted.call)
    approval = ApprovalRequest(name="n1", role="web")
    with pytest.raises(Exception, match="already has this name") as caught:
        admitted.service.approval.approve(stranger.node_id, approval, "admin")
    assert caught.value.code == "name-taken"
    assert stranger.attest(admitted.call).certificate is None


def test_a_reset_count_that_went_back_is_held_against_the_node(admitted, machine):
    """A TPM that was cleared, or a copy of its state from an earlier boot."""
    ahead_of(admitted, "n1")
    result = machine.attest(admitted.call)
    codes = [reason.code for reason in result.reasons]
    assert (result.state, codes) == ("untrusted", ["reset-count-rollback", "suspected-clone"])
    assert (result.certificate, result.secrets) == (None, ())


def test_a_person_can_readmit_a_node_whose_tpm_was_cleared(admitted, machine):
    ahead_of(admitted, "n1")
    machine.attest(admitted.call)
    admitted.service.approval.approve("n1", ApprovalRequest(), "admin")
    admitted.clock.pass_(1)
    assert machine.attest(admitted.call).state == "trusted"


def ahead_of(server, name: str) -> None:
    """The server remembers more resets of this TPM than it has now."""
    with server.opened.database.transaction() as rows:
        node = rows.nodes.find(name)
        later = Clock(node.reset_count + 100, 0, node.clock)
        assert rows.nodes.advance_clock(node, later)


def test_nothing_is_handed_out_that_the_log_does_not_hold(admitted, machine):
    """The grant exists in memory before the log is asked; it must not leave it."""
    (admitted.folder / "log/checkpoint.new").unlink(missing_ok=True)
    (admitted.folder / "log/checkpoint.new").mkdir()
    node = admitted.node("n1")
    certificates = certificates_of(admitted, machine)
    with pytest.raises(LogUnwritable):
        machine.attest(admitted.call)
    assert certificates_of(admitted, machine) == certificates
    assert admitted.node("n1") == node


def certificates_of(server, machine):
    with server.opened.database.snapshot() as rows:
        return rows.certificates.valid(machine.node_id, now=server.clock())


def test_a_secret_of_a_role_that_was_taken_away_is_not_released_again(admitted, machine):
    assert len(machine.attest(admitted.call).secrets) == 1
    admitted.service.approval.approve("n1", ApprovalRequest(role="db"), "admin")
    admitted.clock.pass_(1)
    assert machine.attest(admitted.call).secrets == ()
