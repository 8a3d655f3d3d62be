"""Logged verdicts reached once more, from real evidence; and everything that must not replay."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import timedelta

import msgspec
import pytest

from catena.appraise.policy import default_policy_text
from catena.appraise.tpmidentity import TpmIdentity
from catena.audit.entries import InForce, Verdict
from catena.audit.evidence import (
    SMALL,
    EvidenceAltered,
    EvidenceMissing,
    EvidenceStore,
    EvidenceUnwritable,
)
from catena.audit.folder import LogFolder
from catena.cli.main import run
from catena.errors import ExitCode
from catena.evidence import Evidence
from catena.formats.policies import PolicyDocument
from catena.keys.documents import seal_document
from catena.keys.hierarchy import KeyName
from catena.service.replay import (
    NeverAccepted,
    NoVerdictThen,
    UnreadableEvidence,
    VerdictDiffers,
    VerdictNotRecorded,
    find_verdict,
    replay,
)
from catena.service.views import RevocationRequest
from served import served

VENDOR = default_policy_text() + "\n[vendor] a vendor vouches for the TPM\n  tpm_kind == 'vendor'\n"


@pytest.fixture
def attested(trusting, machine):
    """Untrusted before its firmware was captured, then trusted."""
    trusting.admit(machine)
    assert machine.attest(trusting.call).verdict == "trusted"
    return trusting


def found_at(server, seconds=0, node="n1"):
    at = server.clock.time + timedelta(seconds=seconds)
    return find_verdict(
        LogFolder(server.folder / "log"), server.keys.public_key(KeyName.LOG), node, at
    )


def store_of(server):
    return EvidenceStore(server.folder / "evidence")


def changed(found, **fields):
    return dataclasses.replace(found, entry=msgspec.structs.replace(found.entry, **fields))


def put(server, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    store_of(server).keep({digest: content})
    return digest


def test_a_trusted_verdict_comes_out_again(attested):
    found = replay(found_at(attested), store_of(attested))
    assert (found.verdict, found.release, found.reasons, found.same_quirks) == (
        "trusted",
        "lab-1",
        (),
        True,
    )
    assert len(found.references) == 3


def test_an_untrusted_verdict_comes_out_again_with_its_reasons(attested, machine):
    """The first one: its firmware was nobody's then, and nobody had approved the node."""
    found = replay(found_at(attested, -1, machine.node_id), store_of(attested))
    assert found.verdict == "untrusted"
    assert "unclaimed-event" in [one.code for one in found.reasons]
    assert len(found.references) == 2


def test_a_revoked_node_s_verdict_comes_out_again(attested, machine):
    request = RevocationRequest(reason="stolen")
    attested.service.revocations.revoke("n1", request, "alice")
    attested.clock.pass_(1)
    assert machine.attest(attested.call).reasons[-1].code == "node-revoked"
    assert replay(found_at(attested), store_of(attested)).verdict == "trusted"


def test_each_verdict_is_replayed_with_the_policy_of_its_time(attested, machine):
    before = attested.clock.time
    attested.clock.pass_(1)
    document = PolicyDocument(name="strict", version=1, text=VENDOR)
    signer = attested.keys.signer(KeyName.RELEASE)
    attested.service.policies.apply(seal_document(document, (), signer), "admin")
    attested.clock.pass_(1)
    assert machine.attest(attested.call).verdict == "untrusted"
    now = replay(found_at(attested), store_of(attested))
    assert [one.code for one in now.reasons] == ["policy:vendor"]
    passed = (before - attested.clock.time).total_seconds()
    then = replay(found_at(attested, passed), store_of(attested))
    assert (then.verdict, then.policy == now.policy) == ("trusted", False)
    # Once a policy was applied, the shipped one does not count any more.
    with pytest.raises(NeverAccepted):
        replay(changed(found_at(attested), policy_sha256=then.policy), store_of(attested))


def test_a_policy_on_the_tpm_is_replayed_from_what_the_entry_says_of_it(attested, machine):
    clause = "tpm_type == 'virtual' && tpm_tolerances == [] && tpm_firmware_number > 0"
    text = f"{default_policy_text()}\n[tpm] a virtual TPM without faults\n  {clause}\n"
    document = PolicyDocument(name="tpm", version=1, text=text)
    signer = attested.keys.signer(KeyName.RELEASE)
    attested.service.policies.apply(seal_document(document, (), signer), "admin")
    attested.clock.pass_(1)
    assert machine.attest(attested.call).verdict == "trusted"
    found = found_at(attested)
    assert replay(found, store_of(attested)).verdict == "trusted"
    another = msgspec.structs.replace(found.entry.before, tpm=TpmIdentity(type="discrete"))
    with pytest.raises(VerdictDiffers, match="policy:tpm"):
        replay(changed(found, before=another), store_of(attested))
    unknown = msgspec.structs.replace(found.entry.before, tpm=msgspec.UNSET)
    with pytest.raises(VerdictDiffers, match="policy:tpm"):
        replay(changed(found, before=unknown), store_of(attested))


def test_a_refusal_of_the_node_s_own_evidence_comes_out_again(attested, machine):
    """The same clock twice: a quote from before the last one is the node's own doing, or nobody's."""
    attested.clock.pass_(1)
    evidence = machine.evidence(machine.nonce(attested.call))
    pcrs = (b"\1" * 32, *evidence.pcrs[1:])
    lying = msgspec.structs.replace(evidence, pcrs=pcrs)
    answer = attested.service.attestation.attest(lying)
    assert answer.verdict == "untrusted"
    found = replay(found_at(attested), store_of(attested))
    assert [one.code for one in found.reasons] == [one.code for one in answer.reasons]


def test_every_verdict_s_evidence_is_there_and_kept_once(attested, machine):
    attested.clock.pass_(1)
    machine.attest(attested.call)
    store = store_of(attested)
    verdicts = [one for one in attested.entries() if isinstance(one, Verdict)]
    assert len(verdicts) == 3
    for one in verdicts:
        evidence = msgspec.json.decode(store.read(one.evidence_sha256), type=Evidence)
        assert evidence.logs == {}
        assert {log.sha256: log.size for log in evidence.manifest} == {
            log: len(store.read(log)) for log in one.logs
        }
    [pack] = (store.path / "packs").glob("pack-????????")
    files = {path.name: path.stat().st_size for path in store.path.glob("??/*")}
    assert min(files.values()) > SMALL
    # logs, policy, key, three references, two sets of them: each in a file, or once in the pack
    shared = {log for one in verdicts for log in one.logs}
    packed = pack.with_name(f"{pack.name}.index").stat().st_size // 44 - len(verdicts)
    assert len(files) + packed == len(shared) + 1 + 1 + 3 + 2
    for name in {*shared, verdicts[0].policy_sha256, verdicts[0].before.ak_sha256} - files.keys():
        assert pack.read_bytes().count(bytes.fromhex(name)) == 1


def test_without_room_for_evidence_nothing_is_decided(attested, machine):
    kinds, store = attested.kinds(), store_of(attested)
    attested.clock.pass_(1)
    evidence = machine.evidence(machine.nonce(attested.call))
    moved = store.path.rename(store.path.with_name("away"))
    store.path.write_bytes(b"a file in the folder's place")
    with pytest.raises(EvidenceUnwritable):
        attested.service.attestation.attest(evidence)
    assert attested.kinds() == kinds
    store.path.unlink()
    moved.rename(store.path)
    assert attested.service.attestation.attest(evidence).verdict == "trusted"


def test_a_lost_store_is_filled_again_with_the_boot_log_that_is_not_sent_any_more(
    attested, machine
):
    store = store_of(attested)
    store.path.rename(store.path.with_name("lost"))
    attested.clock.pass_(1)
    assert machine.attest(attested.call).verdict == "trusted"
    assert replay(found_at(attested), store).verdict == "trusted"


def test_edited_and_missing_evidence(attested):
    found, store = found_at(attested), store_of(attested)
    pack = store.path / "packs" / "pack-00000001"
    kept = (found.entry.policy_sha256, *found.entry.logs)
    files = [store.path / digest[:2] / digest for digest in kept]
    for path in (pack, *(file for file in files if file.exists())):  # what is small is in the pack
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(EvidenceAltered):
            replay(found, store)
        path.unlink()
        with pytest.raises(EvidenceMissing):
            replay(found, store)
        path.write_bytes(content)
    assert replay(found, store).verdict == "trusted"


def test_a_server_that_logged_another_verdict_is_found_out(attested):
    found, store = found_at(attested), store_of(attested)
    lies = (
        {"verdict": "untrusted"},
        {"release": "lab-2"},
        {"reasons_total": 3},
        {
            "before": msgspec.structs.replace(
                found.entry.before, attested=found.entry.at + timedelta(seconds=9)
            )
        },
    )
    for lie in lies:
        with pytest.raises(VerdictDiffers) as caught:
            replay(changed(found, **lie), store)
        assert caught.value.differences


def test_swapped_inputs_are_found_out(attested):
    found, store = found_at(attested), store_of(attested)
    strict = put(attested, VENDOR.encode())
    with pytest.raises(VerdictDiffers, match="policy:vendor"):
        replay(changed(found, policy_sha256=strict), store)
    in_force = msgspec.json.decode(store.read(found.entry.references[0]), type=InForce)
    fewer = msgspec.structs.replace(in_force, documents=in_force.documents[1:])
    with pytest.raises(VerdictDiffers):
        replay(changed(found, references=(put(attested, msgspec.json.encode(fewer)),)), store)
    foreign = msgspec.structs.replace(in_force, documents=(strict,))
    with pytest.raises(NeverAccepted):
        replay(changed(found, references=(put(attested, msgspec.json.encode(foreign)),)), store)
    other_key = msgspec.structs.replace(found.entry.before, ak_sha256=strict)
    with pytest.raises(NeverAccepted):
        replay(changed(found, before=other_key), store)
    with pytest.raises(UnreadableEvidence):
        replay(changed(found, evidence_sha256=strict), store)
    with pytest.raises(UnreadableEvidence):
        replay(changed(found, policy_sha256=found.entry.evidence_sha256), store)


def test_verdicts_of_older_servers_say_that_they_cannot_be_replayed(attested):
    older = changed(found_at(attested), before=msgspec.UNSET, references=())
    with pytest.raises(VerdictNotRecorded):
        replay(older, store_of(attested))


def test_no_verdict_then(attested):
    for node, seconds in (("n1", -3600), ("n2", 0), ("", 0)):
        with pytest.raises(NoVerdictThen):
            found_at(attested, seconds, node)


def test_the_command(attested, capsys):
    words = ["--log", str(attested.folder / "log"), "--key", str(attested.keys.path / "log.pub")]
    at = ["--at", attested.clock.time.isoformat()]
    assert run(["audit", "replay", "n1", *at, *words]) == 0
    assert "the same verdict follows from the evidence" in capsys.readouterr().out
    assert run(["audit", "replay", "n1", *at, *words, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "trusted"
    assert run(["audit", "replay", "n1", *at, *words, "--evidence", "/nowhere"]) == 3
    assert run(["audit", "replay", "n9", *at, *words]) == 3
    with served(attested.folder / "log") as url:
        remote = ["audit", "replay", "n1", *at, *words, "--log", url]
        assert run([*remote, "--evidence", str(attested.folder / "evidence")]) == 0
        assert run(remote) == ExitCode.USAGE  # which evidence?
    policy = found_at(attested).entry.policy_sha256
    (attested.folder / "evidence" / policy[:2] / policy).write_bytes(VENDOR.encode())
    assert run(["audit", "replay", "n1", *at, *words]) == 20
