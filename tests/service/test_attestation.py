from __future__ import annotations

import hashlib
import sqlite3
import threading

import msgspec
import pytest
from cryptography import x509

from appraise.forged import Boot, corpus_boot, csr, ecc_public, encode_log, key
from catena.appraise.nonce import ForgedNonce, StaleNonce
from catena.appraise.quote import ForeignSigner, ForgedQuote, UnboundQuote
from catena.audit.log import LogUnwritable
from catena.audit.receipt import verify_proof
from catena.errors import FormatError
from catena.formats import tcglog
from catena.formats.nodeapi import AttestResult, NonceRequest, NonceResponse
from catena.service.attestation import LogsMissing
from catena.service.conclusion import RacedAttestation
from catena.service.nodes import UnknownNode
from catena.service.views import ApprovalRequest
from catena.store.errors import DatabaseGone
from catena.store.nodes import Clock
from service.fixtures import PASSWORD, capture, listed, put_secret
from swtpm import needs_swtpm

pytestmark = [needs_swtpm, pytest.mark.tpm]


def attest_with(server, evidence) -> AttestResult:
    return server.call("/v1/attest", evidence, AttestResult)


def tampered(machine) -> dict[str, object]:
    """Evidence that the TPM signed, about PCR values that it did not quote."""
    values = machine.tpm.read_pcrs(machine.bank, tuple(range(16)))
    return {"pcrs": (bytes(32), *values[1:])}


@pytest.fixture
def admitted(trusting, machine):
    """A node that received its first certificate."""
    put_secret(trusting.service, "db-password", "web")
    trusting.admit(machine)
    assert machine.attest(trusting.call).state == "trusted"
    trusting.clock.pass_(1)
    return trusting


def test_a_machine_enrols_attests_and_receives_certificate_and_secret(trusting, machine):
    put_secret(trusting.service, "db-password", "web")
    trusting.admit(machine)
    result = machine.attest(trusting.call)
    assert (result.verdict, result.state, result.name) == ("trusted", "trusted", "n1")
    assert result.reasons == ()
    assert result.interval == 30
    assert [machine.open(sealed) for sealed in result.secrets] == [PASSWORD]
    assert trusting.kinds()[-3:] == ["verdict", "certificate", "secret-release"]


def test_the_certificate_is_for_the_quoted_key_and_the_assigned_name(admitted, machine):
    result = machine.attest(admitted.call)
    certificate = x509.load_pem_x509_certificate(result.certificate.encode())
    assert certificate.public_key() == machine.key.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://acme.example/node/n1"
    ]
    lifetime = certificate.not_valid_after_utc - admitted.clock()
    assert lifetime.total_seconds() == 600
    ca = admitted.service.setting.authorities.issuing(admitted.clock()).certificate
    certificate.verify_directly_issued_by(ca)


def test_receipts_prove_that_all_that_was_given_is_in_the_log(admitted, machine):
    put_secret(admitted.service, "other", "web")
    result = machine.attest(admitted.call)
    key = admitted.service.setting.journal.public_key
    proven = [verify_proof(one.encode(), key).entry for one in result.receipts]
    assert [one.kind for one in proven[:2]] == ["verdict", "certificate"]
    assert {one.secret for one in proven[2:]} == {one.name for one in result.secrets}
    assert len(proven) > 2
    indices = [verify_proof(one.encode(), key).index for one in result.receipts]
    entries = admitted.entries()
    assert [entries[index] for index in indices] == proven


def test_a_node_that_nobody_approved_is_appraised_and_receives_nothing(trusting, machine):
    put_secret(trusting.service, "db-password", "web")
    machine.enrol(trusting.call)
    result = machine.attest(trusting.call)
    assert (result.verdict, result.state) == ("untrusted", "pending")
    assert result.reasons[-1].code == "awaiting-approval"
    capture(trusting.service, machine.node_id)
    result = machine.attest(trusting.call)
    assert (result.verdict, result.state) == ("trusted", "pending")
    assert [reason.code for reason in result.reasons] == ["awaiting-approval"]
    assert (result.certificate, result.secrets) == (None, ())
    assert trusting.kinds()[-1] == "verdict"


def test_a_node_receives_only_the_secrets_of_its_role(trusting, machine):
    put_secret(trusting.service, "web-key", "web")
    put_secret(trusting.service, "db-key", "db")
    trusting.admit(machine, role="web")
    assert [sealed.name for sealed in machine.attest(trusting.call).secrets] == ["web-key"]
    released = [entry.secret for entry in trusting.entries() if entry.kind == "secret-release"]
    assert released == ["web-key"]


def test_an_unknown_tpm_receives_no_nonce_and_the_denial_is_logged(trusting):
    with pytest.raises(UnknownNode):
        trusting.call("/v1/nonce", NonceRequest(node_id="0" * 64), NonceResponse)
    denial = trusting.entries()[-1]
    assert (denial.kind, denial.code, denial.node_id) == ("denial", "unknown-node", "0" * 64)


def test_evidence_of_an_unknown_tpm_is_refused_and_logged(trusting, machine):
    machine.enrol(trusting.call)
    evidence = machine.evidence(machine.nonce(trusting.call), node_id="0" * 64)
    with pytest.raises(UnknownNode):
        attest_with(trusting, evidence)
    assert trusting.entries()[-1].kind == "denial"


def test_logs_that_the_server_lacks_are_asked_for_and_a_boot_log_travels_once(trusting, machine):
    machine.enrol(trusting.call)
    evidence = machine.evidence(machine.nonce(trusting.call))
    digests = tuple(entry.sha256 for entry in evidence.manifest)
    with pytest.raises(LogsMissing) as caught:
        attest_with(trusting, msgspec.structs.replace(evidence, logs={}))
    assert caught.value.missing == digests
    attest_with(trusting, evidence)
    evidence = machine.evidence(machine.nonce(trusting.call))
    boot, runtime = (entry.sha256 for entry in evidence.manifest)
    without_boot = msgspec.structs.replace(evidence, logs={runtime: evidence.logs[runtime]})
    assert attest_with(trusting, without_boot).state == "pending"
    with pytest.raises(LogsMissing) as caught:
        attest_with(trusting, msgspec.structs.replace(evidence, logs={}))
    assert caught.value.missing == (runtime,)
    assert trusting.node(machine.node_id).boot_log == boot


def test_a_log_sent_under_another_digest_is_never_kept(trusting, machine):
    machine.enrol(trusting.call)
    evidence = machine.evidence(machine.nonce(trusting.call))
    boot = evidence.manifest[0].sha256
    swapped = msgspec.structs.replace(evidence, logs={**evidence.logs, boot: b"other"})
    assert attest_with(trusting, swapped).reasons[0].code == "log-altered"
    with trusting.opened.database.snapshot() as rows:
        assert rows.logs.get(boot) is None


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda m, _: {"signature": m.evidence(bytes(56)).signature}, ForgedQuote),
        (lambda m, _: {"csr": csr(key(99))}, UnboundQuote),
        (lambda m, e: {"manifest": e.manifest[::-1]}, UnboundQuote),
        (lambda m, _: {"nonce": bytes(56)}, UnboundQuote),
    ],
    ids=["signature", "csr-of-a-relay", "manifest", "nonce"],
)
def test_what_anybody_could_have_sent_is_logged_and_changes_nothing(
    admitted, machine, change, refusal
):
    before = admitted.node("n1")
    evidence = machine.evidence(machine.nonce(admitted.call))
    with pytest.raises(refusal):
        attest_with(admitted, msgspec.structs.replace(evidence, **change(machine, evidence)))
    assert admitted.node("n1") == before
    assert admitted.entries()[-1].kind == "denial"
    admitted.clock.pass_(1)
    assert machine.attest(admitted.call).state == "trusted"


def test_a_nonce_of_another_node_is_refused(admitted, machine):
    from catena.appraise.nonce import make_nonce

    keys = admitted.service.setting.keys
    foreign = make_nonce(keys.nonce, "ab" * 32, admitted.clock(), b"r" * 16)
    with pytest.raises(ForgedNonce):
        attest_with(admitted, machine.evidence(foreign))


def test_a_recorded_attestation_cannot_be_replayed_later(admitted, machine):
    evidence = machine.evidence(machine.nonce(admitted.call))
    assert attest_with(admitted, evidence).state == "trusted"
    admitted.clock.pass_(61)
    with pytest.raises(StaleNonce):
        attest_with(admitted, evidence)


def test_an_older_quote_after_a_newer_one_makes_the_node_untrusted(admitted, machine):
    older = machine.evidence(machine.nonce(admitted.call))
    newer = machine.evidence(machine.nonce(admitted.call))
    assert attest_with(admitted, newer).state == "trusted"
    result = attest_with(admitted, older)
    assert (result.state, result.reasons[0].code) == ("untrusted", "clock-rollback")


def test_a_quote_by_another_key_is_not_the_nodes(admitted, machine):
    with admitted.opened.database.transaction() as rows:
        rows.nodes.replace_ak(machine.node_id, ecc_public(key(11)))
    with pytest.raises(ForeignSigner):
        machine.attest(admitted.call)


@pytest.mark.parametrize("field", ["quote", "signature", "csr"])
def test_truncated_evidence_is_malformed_and_changes_nothing(admitted, machine, field):
    before = admitted.node("n1")
    evidence = machine.evidence(machine.nonce(admitted.call))
    whole = getattr(evidence, field)
    for size in range(0, len(whole), 9):
        short = msgspec.structs.replace(evidence, **{field: whole[:size]})
        with pytest.raises(FormatError):
            attest_with(admitted, short)
    assert admitted.node("n1") == before


def test_what_the_tpm_signed_and_does_not_hold_makes_the_node_untrusted(admitted, machine):
    result = machine.attest(admitted.call, **tampered(machine))
    assert (result.verdict, result.state) == ("untrusted", "untrusted")
    assert (result.certificate, result.secrets) == (None, ())
    assert result.reasons[0].code == "pcr-digest-mismatch"
    assert admitted.node("n1").state_reason == "pcr-digest-mismatch"
    assert admitted.kinds()[-2:] == ["verdict", "revocation"]


def test_an_untrusted_node_stays_so_until_a_person_readmits_it(admitted, machine):
    machine.attest(admitted.call, **tampered(machine))
    again = machine.attest(admitted.call)
    assert (again.verdict, again.state, again.certificate) == ("trusted", "untrusted", None)
    assert [reason.code for reason in again.reasons] == ["awaiting-readmission"]
    admitted.service.approval.approve("n1", ApprovalRequest(), "admin")
    assert admitted.node("n1").state == "untrusted"
    back = machine.attest(admitted.call)
    assert (back.state, len(back.secrets)) == ("trusted", 1)
    assert not admitted.node("n1").readmitted


def test_a_readmission_does_not_survive_the_next_untrusted_verdict(admitted, machine):
    machine.attest(admitted.call, **tampered(machine))
    admitted.service.approval.approve("n1", ApprovalRequest(), "admin")
    machine.attest(admitted.call, **tampered(machine))
    assert machine.attest(admitted.call).reasons[-1].code == "awaiting-readmission"


def test_a_boot_that_no_reference_describes_is_untrusted_event_by_event(trusting, machine):
    machine.enrol(trusting.call)
    result = machine.attest(trusting.call)
    codes = {reason.code for reason in result.reasons}
    assert {"no-firmware-capture", "unclaimed-event"} <= codes
    explained = trusting.service.nodes.explain(machine.node_id)
    unclaimed = [event for event in explained.events if event.claimed_by is None]
    assert unclaimed
    assert all(event.why for event in unclaimed)
    assert {event.pcr for event in unclaimed} <= {0, 1, 2, 3, 6}


def test_a_log_with_an_event_left_out_makes_the_node_untrusted(admitted, machine, boot):
    events = list(tcglog.parse(boot.log).events[1:])
    del events[len(events) // 2]
    machine.boot = Boot(encode_log(boot.log, events), boot.ima)
    result = machine.attest(admitted.call)
    assert (result.state, result.reasons[0].code) == ("untrusted", "pcr-unexplained")
    assert admitted.node("n1").boot_log == hashlib.sha256(boot.log).hexdigest()


def test_the_log_of_another_boot_makes_the_node_untrusted(admitted, machine):
    machine.boot = corpus_boot("A_nosb_uki")
    assert machine.attest(admitted.call).state == "untrusted"


# Log first, act second ---------------------------------------------------------------------


def make_log_unwritable(server) -> None:
    """The new checkpoint's place is taken by something that is no file."""
    (server.folder / "log/checkpoint.new").unlink(missing_ok=True)
    (server.folder / "log/checkpoint.new").mkdir()


def test_a_log_that_cannot_be_written_stops_every_decision(admitted, machine):
    before = admitted.node("n1")
    make_log_unwritable(admitted)
    with pytest.raises(LogUnwritable):
        machine.attest(admitted.call)
    with pytest.raises(LogUnwritable):
        admitted.service.approval.approve("n1", ApprovalRequest(name="n2"), "admin")
    with pytest.raises(LogUnwritable):
        put_secret(admitted.service, "other", "web")
    with pytest.raises(LogUnwritable):
        admitted.service.secrets.remove("db-password", "admin")
    assert admitted.node("n1") == before
    assert [secret.name for secret in listed(admitted.service.secrets)] == ["db-password"]


def test_a_log_that_cannot_be_written_stops_an_enrolment(trusting, machine):
    make_log_unwritable(trusting)
    with pytest.raises(LogUnwritable):
        machine.enrol(trusting.call)
    assert listed(trusting.service.nodes) == ()


def test_a_log_that_can_be_written_again_goes_on(admitted, machine):
    make_log_unwritable(admitted)
    with pytest.raises(LogUnwritable):
        machine.attest(admitted.call)
    (admitted.folder / "log/checkpoint.new").rmdir()
    assert machine.attest(admitted.call).state == "trusted"


def test_a_database_that_goes_away_mid_write_leaves_no_half_effect(admitted, machine):
    before = admitted.node("n1")
    with sqlite3.connect(admitted.folder / "catena.db") as other:
        other.execute("ALTER TABLE secret_releases RENAME TO gone")
    other.close()
    with pytest.raises(DatabaseGone):
        machine.attest(admitted.call)
    with sqlite3.connect(admitted.folder / "catena.db") as other:
        other.execute("ALTER TABLE gone RENAME TO secret_releases")
    other.close()
    assert admitted.node("n1") == before
    # The log may tell of a decision without effect, never the other way round.
    assert admitted.kinds()[-3:] == ["verdict", "certificate", "secret-release"]
    assert machine.attest(admitted.call).state == "trusted"


def test_of_two_conclusions_from_the_same_state_only_one_takes_effect(admitted, machine):
    """Another replica concludes between our reading of the node and our effect."""
    evidence = machine.evidence(machine.nonce(admitted.call))
    journal = admitted.service.setting.journal
    append = journal.append

    def race(leaves):
        receipts = append(leaves)
        with admitted.opened.database.transaction() as rows:
            node = rows.nodes.find("n1")
            rows.nodes.advance_clock(node, Clock(node.reset_count, 0, 2**40))
        return receipts

    journal.append = race
    certificates = certificates_of(admitted, machine)
    with pytest.raises(RacedAttestation):
        attest_with(admitted, evidence)
    assert certificates_of(admitted, machine) == certificates


def certificates_of(server, machine):
    with server.opened.database.snapshot() as rows:
        return rows.certificates.valid(machine.node_id, now=server.clock())


def test_a_key_replaced_while_evidence_is_judged_is_a_race(admitted, machine):
    evidence = machine.evidence(machine.nonce(admitted.call))
    judge = admitted.service.attestation._judge

    def slow(*arguments):
        judgement = judge(*arguments)
        with admitted.opened.database.transaction() as rows:
            rows.nodes.replace_ak(machine.node_id, ecc_public(key(11)))
        return judgement

    admitted.service.attestation._judge = slow
    with pytest.raises(RacedAttestation):
        attest_with(admitted, evidence)


def test_threads_attesting_at_once_all_end_in_the_log(admitted, machine):
    many = [machine.evidence(machine.nonce(admitted.call)) for _ in range(6)]
    ends: list[str] = []

    def run(evidence) -> None:
        try:
            ends.append(attest_with(admitted, evidence).reasons[:1] or "trusted")
        except RacedAttestation:
            ends.append("raced")

    threads = [threading.Thread(target=run, args=(one,)) for one in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 6
    assert "trusted" in ends
    admitted.entries()
