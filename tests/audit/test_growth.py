"""Proofs of growth from a real log's hash tiles, and older checkpoints that a log contains."""

from __future__ import annotations

import itertools
import random
import shutil

import pytest
from audit_samples import ORIGIN

from catena.audit import checkpoint as checkpoints
from catena.audit import merkle
from catena.audit.folder import LogFolder
from catena.audit.growth import (
    CheckpointNotContained,
    prove_growth,
    require_contained,
)
from catena.audit.hashes import TileUnavailable
from catena.audit.log import TransparencyLog
from catena.formats.note import Checkpoint

SIZES = (1, 2, 3, 255, 256, 257, 511, 512, 700, 1024, 1300)


@pytest.fixture(scope="module")
def grown(tmp_path_factory, signer):
    """A log that reached each of the sizes, and its checkpoints."""
    folder = tmp_path_factory.mktemp("grown") / "log"
    log = TransparencyLog.create(folder, ORIGIN, signer)
    heads = {0: Checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT)}
    for size in SIZES:
        entries = [f"{number}".encode() for number in range(log.size, size)]
        log.append(entries)
        heads[size] = checkpoints.verify(log.checkpoint().encode(), signer.public_key)
    log.close()
    return LogFolder(folder), heads


def test_growth_between_any_two_sizes_is_proven(grown):
    reader, heads = grown
    for old in SIZES:
        for new in SIZES:
            proof = prove_growth(reader, old, new)
            if new <= old:
                assert proof == ()
            else:
                roots = heads[old].root, heads[new].root
                merkle.verify_consistency(old, roots[0], new, roots[1], proof)
    assert prove_growth(reader, 0, 700) == ()


def test_growth_from_sizes_between_is_proven(grown):
    reader, heads = grown
    leaves = [merkle.leaf_hash(f"{number}".encode()) for number in range(1300)]
    for old in random.Random(7).sample(range(1, 1300), 60):
        root = merkle.Frontier().extend(leaves[:old]).root()
        merkle.verify_consistency(
            old, root, 1300, heads[1300].root, prove_growth(reader, old, 1300)
        )


def test_every_older_checkpoint_is_contained(grown):
    reader, heads = grown
    for head in heads.values():
        require_contained(reader, head, 1300)


def test_another_root_and_a_larger_tree_are_not_contained(grown):
    reader, heads = grown
    for size in (0, 1, 256, 700, 1300):
        with pytest.raises(CheckpointNotContained, match="another root"):
            require_contained(reader, Checkpoint(ORIGIN, size, bytes(32)), 1300)
    with pytest.raises(CheckpointNotContained, match="older"):
        require_contained(reader, heads[1300], 1299)


def test_the_newest_partial_tiles_are_enough(grown, tmp_path):
    """A log may drop the partial tiles of its older trees at any time."""
    reader, heads = grown
    shutil.copytree(reader.path, tmp_path / "log")
    for path in (tmp_path / "log").glob("tile/0/*.p/*"):
        if path.relative_to(tmp_path / "log").as_posix() != "tile/0/005.p/20":
            path.unlink()
    place = LogFolder(tmp_path / "log")
    for old, new in itertools.combinations(SIZES, 2):
        proof = prove_growth(place, old, new, 1300)
        merkle.verify_consistency(old, heads[old].root, new, heads[new].root, proof)
    for head in heads.values():
        require_contained(place, head, 1300)


class Without:
    """A reader that lacks a file, or has a shorter one."""

    def __init__(self, reader, name, content):
        self._reader, self._name, self._content = reader, name, content

    def read(self, name, limit):
        return self._content if name.startswith(self._name) else self._reader.read(name, limit)


@pytest.mark.parametrize("content", [None, b"", bytes(31), bytes(8193)])
def test_a_tile_that_cannot_be_used_is_an_error(grown, content):
    reader, _ = grown
    with pytest.raises(TileUnavailable):
        prove_growth(Without(reader, "tile/0/005", content), 1024, 1300)
