"""Offline verification: any changed byte, missing or added file is found and named."""

from __future__ import annotations

import os
import shutil
import threading

import pytest
from audit_samples import ORIGIN, tree_of

from catena.audit import checkpoint as checkpoints
from catena.audit import tiles, verify
from catena.audit.checkpoint import CheckpointForged, ForeignOrigin
from catena.audit.folder import LogMissing, LogUnreadable
from catena.audit.leaf import seal_entry
from catena.audit.tiles import Tile
from catena.audit.tree import EMPTY_TREE
from catena.audit.verify import (
    BundleMalformed,
    EntryForged,
    EntryMalformed,
    RootMismatch,
    StrangeFile,
    TileAltered,
    TileBeyondCheckpoint,
    TileMissing,
    verify_folder,
)
from catena.errors import ExitCode, LogInconsistent


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(verify, "WRITER_GRACE", 0.0)


@pytest.fixture
def small(folder, log, sealed):
    """A log of three entries, closed."""
    log.append(sealed(1))
    log.append(sealed(3)[1:])
    log.close()
    return folder


@pytest.fixture
def large(folder, log, sealed):
    """A log of 600 entries with two full tiles and a level above them, closed."""
    leaves = sealed(600)
    for start, end in ((0, 250), (250, 520), (520, 530), (530, 600)):
        log.append(leaves[start:end])
    log.close()
    return folder


def test_a_whole_log_is_verified_and_summed_up(large, signer, log):
    seen = []
    summary = verify_folder(large, signer.public_key, origin=ORIGIN, visit=seen.append)
    assert (summary.origin, summary.size) == (ORIGIN, 600)
    assert summary.kinds == {"certificate": 150, "denial": 150, "enrolment": 150, "verdict": 150}
    assert [one.index for one in seen] == list(range(600))
    assert checkpoints.verify(log.checkpoint().encode(), signer.public_key).root.hex() == (
        summary.root
    )


def test_an_empty_log_is_whole(log, folder, signer):
    assert verify_folder(folder, signer.public_key).size == 0


def test_verification_writes_nothing(small, signer):
    before = tree_of(small)
    verify_folder(small, signer.public_key)
    assert tree_of(small) == before


def test_every_changed_byte_of_a_small_log_is_found(small, signer):
    for name, content in tree_of(small).items():
        step = 1 if len(content) < 400 else 17
        for position in range(0, len(content), step):
            changed = bytearray(content)
            changed[position] ^= 1 << (position % 8)
            (small / name).write_bytes(changed)
            with pytest.raises(LogInconsistent) as caught:
                verify_folder(small, signer.public_key)
            assert caught.value.exit_code == ExitCode.LOG_INCONSISTENT
            assert name in str(caught.value)
        (small / name).write_bytes(content)
    verify_folder(small, signer.public_key)


def test_a_changed_byte_in_any_file_of_a_large_log_is_found(large, signer):
    for name, content in tree_of(large).items():
        for position in {0, len(content) // 2, len(content) - 1} if content else ():
            changed = bytearray(content)
            changed[position] ^= 0x20
            (large / name).write_bytes(changed)
            with pytest.raises(LogInconsistent) as caught:
                verify_folder(large, signer.public_key)
            assert name in str(caught.value)
        (large / name).write_bytes(content)


def test_every_missing_file_is_found(large, signer):
    for name in (one for one in tree_of(large) if one.startswith("tile/")):
        tile = tiles.parse_path(name)
        path, aside = large / name, large.with_name("aside")
        path.rename(aside)
        if tile.width == tiles.width_at(tile.level, tile.index, 600):
            with pytest.raises(TileMissing, match="missing") as caught:
                verify_folder(large, signer.public_key)
            assert caught.value.file == name
        else:
            verify_folder(large, signer.public_key)  # an older partial tile may go
        aside.rename(path)


def test_a_cut_or_padded_file_is_found(large, signer):
    for name, content in tree_of(large).items():
        for changed in (content[:-1], content + b"\x00"):
            if content:
                (large / name).write_bytes(changed)
                with pytest.raises(LogInconsistent):
                    verify_folder(large, signer.public_key)
        (large / name).write_bytes(content)


def test_another_key_is_refused(small, stranger):
    with pytest.raises(CheckpointForged):
        verify_folder(small, stranger.public_key)


def test_another_origin_is_refused(small, signer):
    with pytest.raises(ForeignOrigin):
        verify_folder(small, signer.public_key, origin="log.example.org/other")


def test_no_log_is_not_an_empty_log(tmp_path, signer):
    with pytest.raises(LogMissing):
        verify_folder(tmp_path, signer.public_key)
    with pytest.raises(LogMissing):
        verify_folder(tmp_path / "nowhere", signer.public_key)


def test_a_replaced_older_checkpoint_is_found_by_the_tiles_beyond_it(folder, log, signer, sealed):
    log.append(sealed(2))
    older = log.checkpoint()
    log.append(sealed(3)[2:])
    log.close()
    (folder / "checkpoint").write_text(older)
    with pytest.raises(TileBeyondCheckpoint) as caught:
        verify_folder(folder, signer.public_key)
    assert caught.value.file in {"tile/0/000.p/3", "tile/entries/000.p/3"}


@pytest.mark.parametrize("name", ["notes.txt", "tile/0/0001", "tile/0/000.p/03", "tile/x\x1b[2J"])
def test_a_strange_file_is_found_and_its_name_escaped(small, signer, name):
    (small / name).write_bytes(b"")
    with pytest.raises(StrangeFile) as caught:
        verify_folder(small, signer.public_key)
    assert caught.value.as_dict()["file"] == ascii(name)[1:-1]
    assert str(caught.value).isprintable()


def test_a_pipe_in_the_place_of_a_tile_does_not_stop_the_verifier(small, signer):
    path = small / "tile/entries/000.p/3"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LogUnreadable):
        verify_folder(small, signer.public_key)


def rewrite(folder, signer, leaves):
    """A log that the key's owner forged: consistent tiles and checkpoint over any leaves."""
    shutil.rmtree(folder / "tile")
    growth = EMPTY_TREE.grow(leaves)
    for tile, content in growth.files:
        path = folder / tile.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    text = checkpoints.sign(signer, ORIGIN, len(leaves), growth.tree.frontier.root())
    (folder / "checkpoint").write_text(text)


def test_an_entry_that_the_log_key_did_not_sign_is_found(small, signer, stranger, sealed):
    from audit_samples import sample_entry

    rewrite(small, signer, [*sealed(2), seal_entry(stranger, sample_entry(2))])
    with pytest.raises(EntryForged) as caught:
        verify_folder(small, signer.public_key)
    assert (caught.value.file, caught.value.entry) == ("tile/entries/000.p/3", 2)
    assert caught.value.as_dict()["entry"] == 2


def test_an_entry_that_is_none_is_found(small, signer, sealed):
    rewrite(small, signer, [sealed(1)[0], b"hello"])
    with pytest.raises(EntryMalformed) as caught:
        verify_folder(small, signer.public_key)
    assert caught.value.entry == 1


def test_entries_in_another_order_are_found(small, signer, sealed):
    bundle = tiles.encode_bundle([sealed(3)[0], sealed(3)[2], sealed(3)[1]])
    (small / "tile/entries/000.p/3").write_bytes(bundle)
    with pytest.raises(TileAltered) as caught:
        verify_folder(small, signer.public_key)
    assert caught.value.entry == 1


def test_entries_and_tiles_swapped_together_are_found_by_the_root(small, signer, sealed):
    head = (small / "checkpoint").read_bytes()
    rewrite(small, signer, [sealed(3)[0], sealed(3)[2], sealed(3)[1]])
    (small / "checkpoint").write_bytes(head)
    with pytest.raises(RootMismatch):
        verify_folder(small, signer.public_key)


def test_a_bundle_with_one_entry_too_few_is_found(small, signer, sealed):
    (small / "tile/entries/000.p/3").write_bytes(tiles.encode_bundle(sealed(2)))
    with pytest.raises(BundleMalformed):
        verify_folder(small, signer.public_key)


def test_a_higher_tile_is_checked_against_the_lower_ones(large, signer):
    path = large / Tile(1, 0, 2).path
    path.write_bytes(path.read_bytes()[32:] + path.read_bytes()[:32])
    with pytest.raises(TileAltered) as caught:
        verify_folder(large, signer.public_key)
    assert (caught.value.file, caught.value.entry) == ("tile/1/000.p/2", None)


def test_a_log_that_grows_under_the_verifier_is_whole(log, folder, signer, sealed, monkeypatch):
    monkeypatch.setattr(verify, "WRITER_GRACE", 0.25)
    leaves = sealed(600)
    log.append(leaves[:100])
    writer = threading.Thread(
        target=lambda: [log.append(leaves[start : start + 5]) for start in range(100, 600, 5)]
    )
    writer.start()
    while writer.is_alive():
        verify_folder(folder, signer.public_key)
    writer.join()
    assert verify_folder(folder, signer.public_key).size == 600


def test_a_partial_tile_may_have_made_way_for_the_full_one(folder, log, signer, sealed):
    # A reader of the older checkpoint finds the full tile instead (tlog-tiles).
    leaves = sealed(256)
    log.append(leaves[:200])
    older = log.checkpoint()
    log.append(leaves[200:])
    log.close()
    growing = []

    def put_back(_entry):
        if not growing:
            growing.append((folder / "checkpoint").read_text())
            (folder / "checkpoint").write_text(log.checkpoint())

    (folder / "checkpoint").write_text(older)
    assert verify_folder(folder, signer.public_key, visit=put_back).size == 200
