"""Merkle hashing and proofs against RFC 6962's own definitions and foreign vectors."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.audit import merkle
from catena.audit.merkle import Frontier, ProofMismatch

VECTORS = (
    Path(__file__).resolve().parents[2].parent
    / "shared/corpus/tlog/transparency-dev+merkle/testdata"
)
needs_corpus = pytest.mark.skipif(not VECTORS.is_dir(), reason="the shared corpus is not here")

LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(70)]


def tree_hash(leaves):
    """MTH as RFC 6962 section 2.1 writes it."""
    if not leaves:
        return merkle.EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return merkle.node_hash(tree_hash(leaves[:split]), tree_hash(leaves[split:]))


ROOTS = [tree_hash(LEAVES[:size]) for size in range(len(LEAVES) + 1)]
NODES: dict[merkle.Node, bytes] = {}
Frontier().extend(LEAVES, NODES)


def vectors(kind):
    return sorted((VECTORS / kind).rglob("*.json"))


def decode(text):
    return base64.b64decode(text or "")


@needs_corpus
def test_foreign_inclusion_vectors_get_their_verdicts():
    assert len(vectors("inclusion")) > 40
    for path in vectors("inclusion"):
        vector = json.loads(path.read_bytes())
        check = (
            merkle.verify_inclusion,
            (
                decode(vector["leafHash"]),
                vector["leafIdx"],
                vector["treeSize"],
                [decode(part) for part in vector["proof"] or []],
                decode(vector["root"]),
            ),
        )
        expect(check, refused=vector["wantErr"], name=path.name)


@needs_corpus
def test_foreign_consistency_vectors_get_their_verdicts():
    assert len(vectors("consistency")) > 40
    for path in vectors("consistency"):
        vector = json.loads(path.read_bytes())
        check = (
            merkle.verify_consistency,
            (
                vector["size1"],
                decode(vector["root1"]),
                vector["size2"],
                decode(vector["root2"]),
                [decode(part) for part in vector["proof"] or []],
            ),
        )
        expect(check, refused=vector["wantErr"], name=path.name)


def expect(check, *, refused, name):
    function, arguments = check
    try:
        function(*arguments)
    except ProofMismatch:
        assert refused, name
    else:
        assert not refused, name


@pytest.mark.parametrize("size", range(len(LEAVES) + 1))
def test_the_frontier_has_the_root_that_the_definition_gives(size):
    assert Frontier().extend(LEAVES[:size]).root() == ROOTS[size]


@given(st.lists(st.integers(1, 9), max_size=9))
def test_a_frontier_grown_in_any_steps_is_the_same(steps):
    grown, size = Frontier(), 0
    for step in steps:
        grown = grown.extend(LEAVES[size : size + step])
        size = min(size + step, len(LEAVES))
    assert grown == Frontier().extend(LEAVES[:size])
    assert all(NODES[name] == digest for name, digest in grown.nodes().items())


def test_every_inclusion_proof_leads_to_the_root_and_to_no_other():
    for size in range(1, 40):
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, NODES.__getitem__)
            merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])
            for wrong in ((index + 1) % size, size):
                if wrong != index:
                    with pytest.raises(ProofMismatch):
                        merkle.verify_inclusion(LEAVES[index], wrong, size, proof, ROOTS[size])


def test_every_consistency_proof_connects_its_two_roots():
    for new in range(1, 40):
        for old in range(1, new + 1):
            proof = merkle.consistency_proof(old, new, NODES.__getitem__)
            merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)
            if old < new:
                with pytest.raises(ProofMismatch):
                    merkle.verify_consistency(old, ROOTS[old - 1], new, ROOTS[new], proof)


@given(
    size=st.integers(2, 69),
    data=st.data(),
)
def test_a_proof_with_any_flipped_bit_is_refused(size, data):
    index = data.draw(st.integers(0, size - 1))
    proof = list(merkle.inclusion_proof(index, size, NODES.__getitem__))
    part = data.draw(st.integers(0, len(proof) - 1))
    bit = data.draw(st.integers(0, 255))
    proof[part] = (int.from_bytes(proof[part], "big") ^ 1 << bit).to_bytes(32, "big")
    with pytest.raises(ProofMismatch):
        merkle.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


def test_proofs_of_another_length_are_refused():
    proof = merkle.inclusion_proof(3, 9, NODES.__getitem__)
    for wrong in (proof[:-1], (*proof, LEAVES[0])):
        with pytest.raises(ProofMismatch):
            merkle.verify_inclusion(LEAVES[3], 3, 9, wrong, ROOTS[9])
    links = merkle.consistency_proof(5, 9, NODES.__getitem__)
    for wrong in (links[:-1], (*links, LEAVES[0]), ()):
        with pytest.raises(ProofMismatch):
            merkle.verify_consistency(5, ROOTS[5], 9, ROOTS[9], wrong)


def test_an_inner_node_is_never_accepted_as_a_leaf():
    # Second preimage: the leaf and node hashes differ in their first byte.
    inner = NODES[1, 0]
    assert inner != merkle.leaf_hash(LEAVES[0] + LEAVES[1])
    with pytest.raises(ProofMismatch):
        merkle.verify_inclusion(inner, 0, 4, [NODES[1, 1]], ROOTS[4])


def test_parts_that_are_no_hashes_are_refused():
    with pytest.raises(ProofMismatch, match="no hash"):
        merkle.verify_inclusion(b"", 0, 1, [], b"")


def test_an_empty_tree_proves_nothing():
    with pytest.raises(ProofMismatch):
        merkle.verify_consistency(0, ROOTS[0], 3, ROOTS[3], [])
