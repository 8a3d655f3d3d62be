"""Cosignatures under a checkpoint: who counts, and what is refused."""

from __future__ import annotations

import pytest
from audit_samples import ORIGIN
from witness_samples import TIME, PaperLog

from catena.audit import checkpoint as checkpoints
from catena.audit import cosigned
from catena.audit.cosigned import (
    BadQuorum,
    BadWitness,
    CosignatureForged,
    CosignatureFromFuture,
    Cosigner,
    QuorumMissed,
)
from catena.formats import note
from catena.formats.note import COSIGNATURE, ED25519, Note, NoteSignature
from catena.formats.verifierkey import VerifierKey
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key

WITNESSES = {
    name: PrivateKeySigner(generate_key(KeyAlgorithm.ED25519)) for name in ("w1", "w2", "w3")
}


def key_of(name: str) -> str:
    return cosigned.cosigner_key(name, WITNESSES[name].public_key).encode()


KEYS = [key_of(name) for name in WITNESSES]


@pytest.fixture
def log(signer):
    return PaperLog(signer).grow(5)


def signed_by(log: PaperLog, *names: str, time: int = TIME) -> Note:
    signed = note.parse(log.checkpoint().encode())
    lines = [cosigned.cosign(WITNESSES[name], name, signed.text, time) for name in names]
    return Note(signed.text, (*signed.signatures, *lines))


def verify(signed: Note, signer, quorum: int, **options):
    demanded = cosigned.policy(KEYS, quorum)
    return cosigned.verify_cosigned(
        signed.encode().encode(), signer.public_key, demanded, origin=ORIGIN, **options
    )


def test_a_quorum_is_counted_whatever_its_order(log, signer):
    found = verify(signed_by(log, "w3", "w1"), signer, 2, now=TIME)
    assert found.cosigners == (Cosigner("w1", TIME), Cosigner("w3", TIME))
    assert found.checkpoint.size == 5


def test_too_few_witnesses_are_refused(log, signer):
    for names in ((), ("w2",)):
        with pytest.raises(QuorumMissed) as caught:
            verify(signed_by(log, *names), signer, 2)
        assert caught.value.got == f"{len(names)}"


def test_one_witness_twice_is_one(log, signer):
    twice = signed_by(log, "w1", "w1")
    with pytest.raises(QuorumMissed):
        verify(twice, signer, 2)
    later = cosigned.cosign(WITNESSES["w1"], "w1", twice.text, TIME + 9)
    found = verify(Note(twice.text, (*twice.signatures, later)), signer, 1)
    assert found.cosigners == (Cosigner("w1", TIME + 9),)


def test_a_cosignature_of_another_checkpoint_is_forged(log, signer):
    cosignature = signed_by(log, "w1").signatures[-1]
    grown = signed_by(log.fork(5).grow(1))
    with pytest.raises(CosignatureForged):
        verify(Note(grown.text, (*grown.signatures, cosignature)), signer, 1)


def test_a_changed_time_is_forged(log, signer):
    signed = signed_by(log, "w1", "w2")
    line = signed.signatures[-1]
    moved = NoteSignature(
        line.name, line.key_id, (TIME + 1).to_bytes(8, "big") + line.signature[8:]
    )
    with pytest.raises(CosignatureForged):
        verify(Note(signed.text, (*signed.signatures[:-1], moved)), signer, 1)


def test_a_line_of_a_known_key_that_does_not_hold_is_not_passed_over(log, signer):
    signed = signed_by(log, "w1", "w2")
    last = signed.signatures[-1]
    for wrong in (bytes(72), bytes(64), b"x"):
        forged = NoteSignature(last.name, last.key_id, wrong)
        with pytest.raises(CosignatureForged):
            verify(Note(signed.text, (*signed.signatures, forged)), signer, 1)


def test_lines_of_unknown_keys_are_passed_over(log, signer, stranger):
    signed = signed_by(log, "w1")
    lines = (
        cosigned.cosign(stranger, "w9", signed.text, TIME),
        cosigned.cosign(stranger, "w1", signed.text, TIME),  # its name, another key
        NoteSignature("w8", signed.signatures[-1].key_id, bytes(72)),  # its id, another name
    )
    found = verify(Note(signed.text, (*signed.signatures, *lines)), signer, 1)
    assert [one.name for one in found.cosigners] == ["w1"]


def test_a_plain_signature_of_a_witness_is_not_a_cosignature(log, signer):
    signed = signed_by(log)
    key_id = VerifierKey("w1", COSIGNATURE, WITNESSES["w1"].public_key.public_bytes_raw()).key_id
    plain = NoteSignature("w1", key_id, WITNESSES["w1"].sign(signed.text.encode()))
    with pytest.raises(CosignatureForged):
        verify(Note(signed.text, (*signed.signatures, plain)), signer, 1)


def test_a_time_that_has_not_come_is_refused(log, signer):
    signed = signed_by(log, "w1", time=TIME)
    assert verify(signed, signer, 1, now=TIME - cosigned.MAX_SKEW)
    with pytest.raises(CosignatureFromFuture):
        verify(signed, signer, 1, now=TIME - cosigned.MAX_SKEW - 1)


def test_cosignatures_do_not_replace_the_logs_own(log, signer, stranger):
    signed = signed_by(log, "w1", "w2", "w3")
    with pytest.raises(checkpoints.CheckpointForged):
        verify(Note(signed.text, signed.signatures[1:]), signer, 1)
    with pytest.raises(checkpoints.CheckpointForged):
        verify(signed, stranger, 1)


def test_a_logs_own_key_is_not_its_witness(log, signer):
    own = cosigned.cosigner_key("w1", signer.public_key).encode()
    with pytest.raises(BadWitness, match="own key"):
        cosigned.verify_cosigned(
            log.checkpoint().encode(), signer.public_key, cosigned.policy([own], 1)
        )


def test_policies_that_mean_less_than_they_say_are_refused():
    for quorum in (-1, 0, 4):
        with pytest.raises(BadQuorum):
            cosigned.policy(KEYS, quorum)
    with pytest.raises(BadQuorum):
        cosigned.policy([], 0)
    with pytest.raises(BadWitness, match="twice"):
        cosigned.policy([*KEYS, KEYS[0]], 2)
    renamed = VerifierKey("w1-again", COSIGNATURE, cosigned.parse_witness(KEYS[0]).public_key)
    with pytest.raises(BadWitness, match="twice"):
        cosigned.policy([*KEYS, renamed.encode()], 2)
    signing = VerifierKey("w1", ED25519, cosigned.parse_witness(KEYS[0]).public_key)
    with pytest.raises(BadWitness, match="cosign"):
        cosigned.policy([signing.encode()], 1)
    with pytest.raises(BadWitness, match="not a witness"):
        cosigned.policy(["w1"], 1)
    many = [VerifierKey(f"w{n}", COSIGNATURE, n.to_bytes(32, "big")).encode() for n in range(33)]
    with pytest.raises(BadWitness, match="too many"):
        cosigned.policy(many, 1)
