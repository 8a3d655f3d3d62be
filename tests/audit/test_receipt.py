"""Proofs of entries from a log's files, and what does not count as one."""

from __future__ import annotations

import pytest
from audit_samples import ORIGIN
from hypothesis import given
from hypothesis import strategies as st

from catena.audit import merkle, tiles
from catena.audit.checkpoint import CheckpointForged, ForeignOrigin
from catena.audit.folder import LogFolder, LogMissing
from catena.audit.hashes import TileHashes, TileUnavailable
from catena.audit.merkle import HASH_SIZE, Frontier, ProofMismatch
from catena.audit.receipt import NoEntryInReceipt, NoSuchEntry, prove, verify_proof
from catena.audit.tiles import TILE_LEVELS, TILE_WIDTH, Tile
from catena.errors import CatenaError, FormatError
from catena.formats import tlogproof
from changed import replace

SIZE = 600


@pytest.fixture
def grown(log, folder, sealed):
    log.append(sealed(SIZE))
    return LogFolder(folder)


@pytest.mark.parametrize("index", [0, 1, 255, 256, 511, 512, 598, 599])
def test_every_entry_can_be_proven(grown, signer, sealed, index):
    proof = prove(grown, str(index), signer.public_key, origin=ORIGIN)
    assert proof.extra == sealed(SIZE)[index]
    proven = verify_proof(proof.encode().encode(), signer.public_key, origin=ORIGIN)
    assert (proven.index, proven.checkpoint.size) == (index, SIZE)


def test_an_entry_is_found_by_its_leaf_hash(grown, signer, sealed):
    leaf = merkle.leaf_hash(sealed(SIZE)[300]).hex()
    for name in (leaf, f"sha256:{leaf}"):
        assert prove(grown, name, signer.public_key).index == 300


@pytest.mark.parametrize("name", ["600", "-1", "1_0", "٣", "x", "", "ab", "00" * 32, "9" * 30])
def test_an_entry_that_is_not_there_is_told(grown, signer, name):
    with pytest.raises(NoSuchEntry):
        prove(grown, name, signer.public_key)


def test_a_receipt_of_the_log_is_such_a_proof(log, signer, sealed):
    leaves = sealed(3)
    for receipt, leaf in zip(log.append(leaves), leaves, strict=True):
        proven = verify_proof(receipt.encode().encode(), signer.public_key)
        assert (proven.index, receipt.extra) == (receipt.index, leaf)


def test_proofs_that_prove_nothing_are_refused(grown, signer, stranger, sealed):
    key, proof = signer.public_key, prove(grown, "7", signer.public_key)

    def verified(changed, **options):
        return verify_proof(changed.encode().encode(), options.pop("key", key), **options)

    with pytest.raises(CheckpointForged):
        verified(proof, key=stranger.public_key)
    with pytest.raises(ForeignOrigin):
        verified(proof, origin="example.org/other")
    with pytest.raises(NoEntryInReceipt):
        verified(replace(proof, extra=None))
    for changed in (
        replace(proof, index=8),
        replace(proof, hashes=proof.hashes[1:]),
        replace(proof, hashes=(*proof.hashes, bytes(32))),
        replace(proof, extra=sealed(SIZE)[8]),
    ):
        with pytest.raises(ProofMismatch):
            verified(changed)
    with pytest.raises(ProofMismatch):
        verified(proof, leaf=sealed(SIZE)[8])
    assert verified(replace(proof, extra=None), leaf=sealed(SIZE)[7]).index == 7


def test_no_flipped_bit_of_a_proof_is_accepted(grown, signer):
    text = bytearray(prove(grown, "7", signer.public_key).encode().encode())
    for at in range(0, len(text), 7):
        changed = text.copy()
        changed[at] ^= 1 << at % 8
        with pytest.raises(CatenaError):
            verify_proof(bytes(changed), signer.public_key)


def test_a_log_without_files_or_with_changed_ones_proves_nothing(grown, folder, signer):
    with pytest.raises(LogMissing):
        prove(LogFolder(folder / "absent"), "0", signer.public_key)
    level0 = folder / Tile(0, 0).path
    content = level0.read_bytes()
    level0.write_bytes(content[:HASH_SIZE] + bytes(32) + content[2 * HASH_SIZE :])
    with pytest.raises(ProofMismatch):
        prove(grown, "0", signer.public_key)
    level0.write_bytes(content[:-1])
    with pytest.raises(TileUnavailable):
        prove(grown, "0", signer.public_key)
    level0.unlink()
    with pytest.raises(TileUnavailable):
        prove(grown, "0", signer.public_key)


class Simulated:
    """A tree whose leaf ``n`` hashes to ``n``, as tiles in a dict."""

    def __init__(self, size):
        self.size, self.files = size, {}
        row = [n.to_bytes(32, "big") for n in range(size)]
        level = 0
        while row:
            for index in range(0, len(row), TILE_WIDTH):
                part = row[index : index + TILE_WIDTH]
                self.files[Tile(level, index // TILE_WIDTH, len(part)).path] = b"".join(part)
            full = len(row) // TILE_WIDTH
            row = [
                merkle.subtree_root(row[n * TILE_WIDTH : (n + 1) * TILE_WIDTH]) for n in range(full)
            ]
            level += 1

    def read(self, name, limit):
        return self.files.get(name)


@given(st.integers(1, 2000), st.data())
def test_hashes_from_tiles_are_those_of_the_tree(size, data):
    grown = size + data.draw(st.integers(0, 700))
    index = data.draw(st.integers(0, size - 1))
    hashes = TileHashes(Simulated(grown), size, grown)
    leaves = [n.to_bytes(32, "big") for n in range(size)]
    whole = Frontier().extend(leaves)
    assert hashes.frontier() == whole
    proof = merkle.inclusion_proof(index, size, hashes)
    merkle.verify_inclusion(leaves[index], index, size, proof, whole.root())


def test_tiles_of_the_third_level_count():
    size = 2**16 + 300
    simulated = Simulated(size)
    assert tiles.levels(size) == 3
    assert TILE_LEVELS == 8
    whole = Frontier().extend(n.to_bytes(32, "big") for n in range(size))
    assert TileHashes(simulated, size).frontier() == whole


def test_a_proof_is_not_read_from_anything_else(signer):
    with pytest.raises(FormatError):
        verify_proof(b"", signer.public_key)
    assert tlogproof.HEADER.startswith("c2sp.org/")
