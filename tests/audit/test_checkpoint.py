"""Checkpoints: one log, one key, one signature."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from audit_samples import ORIGIN
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from catena.audit import checkpoint as checkpoints
from catena.audit import tiles
from catena.audit.checkpoint import (
    BadOrigin,
    CheckpointForged,
    CheckpointMalformed,
    ForeignOrigin,
    UnusableLogKey,
)
from catena.audit.tree import EMPTY_TREE
from catena.formats import note
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key

TESSERA = (
    Path(__file__).resolve().parents[2].parent
    / "shared/corpus/tlog/transparency-dev+tessera/testdata/log"
)
# The public test key of that log: its four-byte id, 33d7b496, is in the corpus' manifest.
TESSERA_KEY = "AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
needs_corpus = pytest.mark.skipif(not TESSERA.is_dir(), reason="the shared corpus is not here")
ROOT = bytes(32)


@pytest.fixture
def signed(signer):
    return checkpoints.sign(signer, ORIGIN, 7, ROOT).encode()


def test_a_checkpoint_is_verified_by_the_log_s_key(signed, signer):
    head = checkpoints.verify(signed, signer.public_key, origin=ORIGIN)
    assert (head.origin, head.size, head.root) == (ORIGIN, 7, ROOT)


@needs_corpus
def test_every_checkpoint_of_another_implementation_is_verified_with_its_tree():
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(TESSERA_KEY)[1:])
    entries = tiles.parse_bundle((TESSERA / "tile/entries/000.p/15").read_bytes(), 15)
    sizes = set()
    for path in TESSERA.glob("checkpoint*"):
        head = checkpoints.verify(path.read_bytes(), key)
        assert EMPTY_TREE.grow(entries[: head.size]).tree.frontier.root() == head.root
        sizes.add(head.size)
    assert sizes == set(range(16))


def test_a_flipped_bit_anywhere_is_refused(signed, signer):
    for position in range(len(signed)):
        changed = bytearray(signed)
        changed[position] ^= 1 << (position % 8)
        with pytest.raises((CheckpointForged, CheckpointMalformed)):
            checkpoints.verify(bytes(changed), signer.public_key)


def test_a_checkpoint_cut_at_any_byte_is_refused(signed, signer):
    for end in range(len(signed)):
        with pytest.raises(CheckpointMalformed):
            checkpoints.verify(signed[:end], signer.public_key)


def test_another_key_is_refused(signed, stranger):
    with pytest.raises(CheckpointForged):
        checkpoints.verify(signed, stranger.public_key)


def test_a_signature_of_another_tree_is_refused(signed, signer):
    other = note.parse(checkpoints.sign(signer, ORIGIN, 8, ROOT).encode())
    moved = note.Note(note.parse(signed).text, other.signatures).encode().encode()
    with pytest.raises(CheckpointForged, match="does not hold"):
        checkpoints.verify(moved, signer.public_key)


def test_another_log_s_checkpoint_is_refused(signer):
    other = checkpoints.sign(signer, "log.example.org/other", 7, ROOT).encode()
    with pytest.raises(ForeignOrigin):
        checkpoints.verify(other, signer.public_key, origin=ORIGIN)


def test_a_signature_under_another_name_is_refused(signer):
    own = note.parse(checkpoints.sign(signer, ORIGIN, 7, ROOT).encode())
    renamed = own.text.replace(ORIGIN, "log.example.org/other")
    key_id = note.key_id(ORIGIN, signer.public_key.public_bytes_raw())
    signature = note.NoteSignature(ORIGIN, key_id, signer.sign(renamed.encode()))
    with pytest.raises(CheckpointForged, match="one signature"):
        checkpoints.verify(note.Note(renamed, (signature,)).encode().encode(), signer.public_key)


def test_a_witness_signature_beside_the_log_s_is_no_obstacle(signed, signer):
    own = note.parse(signed)
    witness = note.NoteSignature("witness.example", b"\x00\x01\x02\x03", b"w" * 72)
    both = note.Note(own.text, (witness, *own.signatures)).encode().encode()
    assert checkpoints.verify(both, signer.public_key).size == 7


def test_two_signatures_of_the_log_are_refused(signed, signer):
    own = note.parse(signed)
    twice = note.Note(own.text, own.signatures * 2).encode().encode()
    with pytest.raises(CheckpointForged):
        checkpoints.verify(twice, signer.public_key)


def test_a_key_of_another_kind_is_refused():
    p256 = PrivateKeySigner(generate_key(KeyAlgorithm.ECDSA_P256))
    with pytest.raises(UnusableLogKey):
        checkpoints.sign(p256, ORIGIN, 0, ROOT)


@pytest.mark.parametrize("origin", ["", "two words", "plus+plus", "line\nbreak"])
def test_an_origin_that_cannot_name_a_key_is_refused(origin):
    with pytest.raises(BadOrigin):
        checkpoints.require_origin(origin)


def test_an_origin_that_cannot_name_a_key_is_refused_when_read(signer):
    text = note.Checkpoint("two words", 0, ROOT).encode()
    signature = note.NoteSignature("x", b"abcd", signer.sign(text.encode()))
    with pytest.raises(CheckpointMalformed, match="origin"):
        checkpoints.verify(note.Note(text, (signature,)).encode().encode(), signer.public_key)
