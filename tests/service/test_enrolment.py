from __future__ import annotations

import msgspec
import pytest

from appraise.forged import AK_ATTRIBUTES, ecc_public, key
from catena.appraise.attestation_key import AttestationKeyRefusal
from catena.appraise.endorsement_refusal import EkKeyMismatch, NoEkCertificate, UntrustedEkIssuer
from catena.errors import FormatError
from catena.formats.nodeapi import EnrollChallenge, EnrollResult
from catena.formats.tpm2 import TpmaObject
from catena.service.setting import Mode
from catena.service.ticket import ExpiredTicket, ForgedTicket, WrongActivationSecret
from catena.tpm.device import open_tpm
from catena.tpm.failure import ForeignSeal
from service.fixtures import listed, make_server
from swtpm import needs_swtpm, software_tpm

pytestmark = [needs_swtpm, pytest.mark.tpm]

FOREIGN_AK = ecc_public(key(11))


def challenge_of(server, machine, **changes) -> EnrollChallenge:
    return server.call("/v1/enroll", machine.enrolment(**changes), EnrollChallenge)


def finish(server, request) -> EnrollResult:
    return server.call("/v1/enroll/activate", request, EnrollResult)


def test_a_new_tpm_waits_for_approval_without_a_name(trusting, machine):
    result = machine.enrol(trusting.call)
    assert (result.state, result.name) == ("pending", None)
    node = trusting.node(result.node_id)
    assert (node.name, node.role, node.state_reason) == (None, None, "awaiting-approval")
    assert node.name_hint == "call-me-root"
    assert node.ek_root.startswith("software:")
    assert trusting.kinds()[-1] == "enrolment"


def test_nothing_enters_the_database_before_activation(trusting, machine):
    challenge = challenge_of(trusting, machine)
    assert trusting.node(challenge.node_id) is None
    assert "enrolment" not in trusting.kinds()


def test_a_second_enrolment_with_the_same_keys_changes_and_logs_nothing(trusting, machine):
    machine.enrol(trusting.call)
    before = trusting.kinds()
    result = machine.enrol(trusting.call)
    assert result.state == "pending"
    assert trusting.kinds() == before


def test_a_known_ek_with_a_new_ak_replaces_nothing_and_is_logged(trusting, machine):
    node_id = machine.enrol(trusting.call).node_id
    with trusting.opened.database.transaction() as rows:
        rows.nodes.replace_ak(node_id, FOREIGN_AK)
    result = machine.enrol(trusting.call)
    assert result.state == "pending"
    assert trusting.node(node_id).ak_public == FOREIGN_AK
    assert trusting.service.nodes.show(node_id).waiting_key is not None
    assert trusting.entries()[-1].again
    machine.enrol(trusting.call)
    assert sum(entry.kind == "enrolment" for entry in trusting.entries()) == 2


def test_a_tpm_of_an_unknown_vendor_is_refused_and_logged(server, machine):
    with pytest.raises(UntrustedEkIssuer):
        challenge_of(server, machine)
    denial = server.entries()[-1]
    assert (denial.kind, denial.request, denial.code) == ("denial", "enroll", "ek-issuer-untrusted")


def test_a_tpm_without_certificate_is_refused_unless_pinned(tmp_path, keys, server, machine):
    with pytest.raises(NoEkCertificate):
        challenge_of(server, machine, ek_certificates=())
    node_id = server.entries()[-1].node_id
    pinning = make_server(tmp_path / "pinning", keys, pinned_eks=(node_id,))
    assert challenge_of(pinning, machine, ek_certificates=()).node_id == node_id
    pinning.opened.close()


def test_the_certificate_of_another_tpm_is_refused(trusting, machine, tmp_path, tpm_ca):
    with software_tpm(tmp_path / "other", ca=tpm_ca) as other, open_tpm(other.tcti) as tpm:
        ek = tpm.ek_public()
    with pytest.raises(EkKeyMismatch):
        challenge_of(trusting, machine, ek_public=ek)


def test_an_unrestricted_key_is_no_attestation_key(trusting, machine):
    loose = ecc_public(key(11), attributes=AK_ATTRIBUTES & ~TpmaObject.RESTRICTED)
    with pytest.raises(AttestationKeyRefusal):
        challenge_of(trusting, machine, ak_public=loose)
    assert trusting.entries()[-1].kind == "denial"


def test_a_key_that_is_not_in_the_tpm_cannot_meet_the_challenge(trusting, machine):
    challenge = challenge_of(trusting, machine, ak_public=FOREIGN_AK)
    with pytest.raises(ForeignSeal):
        machine.answer(challenge)


def test_a_guessed_activation_secret_is_refused_and_logged(trusting, machine):
    answer = machine.answer(challenge_of(trusting, machine))
    guess = msgspec.structs.replace(answer, secret=bytes(32))
    with pytest.raises(WrongActivationSecret):
        finish(trusting, guess)
    assert trusting.entries()[-1].code == "wrong-activation-secret"
    assert listed(trusting.service.nodes) == ()


def test_a_ticket_of_another_server_is_refused(trusting, server, machine):
    answer = machine.answer(challenge_of(trusting, machine))
    with pytest.raises(ForgedTicket):
        finish(server, answer)
    assert server.entries()[-1].code == "forged-ticket"


def test_a_slow_enrolment_starts_over(trusting, machine):
    answer = machine.answer(challenge_of(trusting, machine))
    trusting.clock.pass_(121)
    with pytest.raises(ExpiredTicket):
        finish(trusting, answer)


@pytest.mark.parametrize("field", ["ek_public", "ak_public"])
def test_a_truncated_public_area_is_malformed(trusting, machine, field):
    whole = getattr(machine.enrolment(), field)
    for size in range(0, len(whole), 7):
        with pytest.raises(FormatError):
            challenge_of(trusting, machine, **{field: whole[:size]})


def test_open_mode_names_the_node_itself_and_says_so(tmp_path, keys, booted_tpm, machine):
    roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
    server = make_server(tmp_path / "open", keys, roots, mode=Mode.OPEN)
    result = machine.enrol(server.call)
    assert result.name == f"node-{result.node_id[:12]}"
    view = server.service.nodes.show(result.node_id)
    assert (view.mode, view.role, view.state) == ("open", "node", "pending")
    assert server.entries()[-1].mode == "open"
    server.opened.close()
