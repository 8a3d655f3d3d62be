"""Attacks on who a node is: one TPM under two names, tickets used again, open mode."""

from __future__ import annotations

import msgspec
import pytest

from appraise.forged import ecc_public, key
from catena.appraise.ek_template import UnknownEkTemplate
from catena.formats.nodeapi import EnrollChallenge, EnrollResult
from catena.formats.tpm2 import TpmaObject, encode_public, parse_public
from catena.service.setting import Mode
from catena.service.views import ApprovalRequest
from changed import replace
from service.fixtures import capture, listed, make_server, put_secret
from swtpm import needs_swtpm

pytestmark = [needs_swtpm, pytest.mark.tpm]

POLICY_B = bytes.fromhex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0")
"""PolicyB of the EK profile with SHA-256 (B.6.5)."""


def other_shape(ek_public: bytes) -> bytes:
    """The same key under the attributes and policy of a template for larger keys."""
    ek = parse_public(ek_public)
    attributes = ek.attributes | TpmaObject.USER_WITH_AUTH
    return encode_public(replace(ek, attributes=attributes, auth_policy=POLICY_B))


def begin(server, machine, **changes) -> EnrollChallenge:
    return server.call("/v1/enroll", machine.enrolment(**changes), EnrollChallenge)


def finish(server, answer) -> EnrollResult:
    return server.call("/v1/enroll/activate", answer, EnrollResult)


def test_one_tpm_is_one_node(trusting, machine):
    machine.enrol(trusting.call)
    second = other_shape(machine.tpm.ek_public())
    with pytest.raises(UnknownEkTemplate):
        finish(trusting, machine.answer(begin(trusting, machine, ek_public=second)))


def test_an_untrusted_tpm_does_not_come_back_under_another_identity(
    tmp_path, keys, booted_tpm, machine, boot
):
    roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
    server = make_server(tmp_path / "open", keys, roots, mode=Mode.OPEN)
    server.import_references(boot)
    put_secret(server.service, "db-password", "node")
    machine.enrol(server.call)
    assert machine.attest(server.call).state == "untrusted"  # nobody has accepted the firmware yet
    capture(server.service, machine.node_id)
    assert machine.attest(server.call).reasons[-1].code == "awaiting-readmission"
    second = other_shape(machine.tpm.ek_public())
    with pytest.raises(UnknownEkTemplate):
        machine.node_id = finish(
            server, machine.answer(begin(server, machine, ek_public=second))
        ).node_id
    assert machine.attest(server.call).secrets == ()
    server.opened.close()


def test_a_ticket_used_again_changes_and_logs_nothing(trusting, machine):
    answer = machine.answer(begin(trusting, machine))
    first = finish(trusting, answer)
    kinds, node = trusting.kinds(), trusting.node(first.node_id)
    assert finish(trusting, answer) == first
    assert trusting.kinds() == kinds
    assert trusting.node(first.node_id) == node


def test_an_old_ticket_does_not_bring_an_old_key_back(trusting, machine):
    """Somebody accepted another key meanwhile: the ticket's key waits like any other."""
    answer = machine.answer(begin(trusting, machine))
    node_id = finish(trusting, answer).node_id
    accepted = ecc_public(key(11))
    with trusting.opened.database.transaction() as rows:
        rows.nodes.replace_ak(node_id, accepted)
    finish(trusting, answer)
    assert trusting.node(node_id).ak_public == accepted
    assert trusting.service.nodes.show(node_id).waiting_key is not None


def test_a_secret_of_one_ticket_does_not_redeem_another(trusting, machine):
    first, second = (machine.answer(begin(trusting, machine)) for _ in range(2))
    mixed = msgspec.structs.replace(first, secret=second.secret)
    with pytest.raises(Exception, match="activation secret is wrong") as caught:
        finish(trusting, mixed)
    assert caught.value.code == "wrong-activation-secret"
    assert listed(trusting.service.nodes) == ()


def test_open_mode_does_not_readmit_what_became_untrusted(tmp_path, keys, booted_tpm, machine):
    roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
    server = make_server(tmp_path / "open", keys, roots, mode=Mode.OPEN)
    machine.enrol(server.call)
    assert machine.attest(server.call).state == "untrusted"
    assert machine.enrol(server.call).state == "untrusted"
    result = machine.attest(server.call)
    assert (result.state, result.certificate, result.secrets) == ("untrusted", None, ())
    server.opened.close()


def test_enrolling_again_does_not_readmit(admitted, machine):
    """A machine that was found out wipes itself and starts over: it is still that TPM."""
    values = machine.tpm.read_pcrs(machine.bank, tuple(range(16)))
    machine.attest(admitted.call, pcrs=(bytes(32), *values[1:]))
    assert machine.enrol(admitted.call).state == "untrusted"
    assert machine.attest(admitted.call).certificate is None


def test_a_name_that_the_node_asks_for_is_never_its_name(trusting, machine):
    request = machine.enrolment(name_hint="node-of-the-chief")
    challenge = trusting.call("/v1/enroll", request, EnrollChallenge)
    result = finish(trusting, machine.answer(challenge))
    assert result.name is None
    approval = ApprovalRequest(name="edge-1", role="web")
    view = trusting.service.approval.approve(result.node_id, approval, "admin")
    assert (view.name, view.untrusted_name_hint) == ("edge-1", "node-of-the-chief")
