"""Following a log: nothing is skipped, and nothing that was seen may change."""

from __future__ import annotations

import shutil

import pytest
from audit_samples import ORIGIN

from catena.audit import checkpoint as checkpoints
from catena.audit.checkpoint import CheckpointForged, ForeignOrigin
from catena.audit.folder import LogFolder
from catena.audit.follow import Following, known
from catena.audit.hashes import TileUnavailable
from catena.audit.log import TransparencyLog
from catena.audit.past import LogForked, LogRewound
from catena.audit.tiles import CHECKPOINT, Tile
from catena.audit.verify import EntryForged, RootMismatch


def follow(folder, key, past=None):
    step = Following(LogFolder(folder), past, key, origin=ORIGIN)
    return [one.index for one in step], step.new


def test_each_entry_is_seen_once_whatever_the_steps(log, folder, signer, sealed):
    seen, past = [], None
    leaves = sealed(700)
    for start, end in ((0, 1), (1, 255), (255, 256), (256, 257), (257, 257), (257, 700)):
        if end > start:
            log.append(leaves[start:end])
        new, past = follow(folder, signer.public_key, past)
        seen += new
        assert past.checkpoint.size == end
    assert seen == list(range(700))


def test_an_empty_log_is_followed(log, folder, signer, sealed):
    new, past = follow(folder, signer.public_key)
    assert new == []
    log.append(sealed(2))
    assert follow(folder, signer.public_key, past)[0] == [0, 1]


def test_a_rewound_log_is_noticed(log, folder, signer, sealed):
    log.append(sealed(3))
    shutil.copy(folder / CHECKPOINT, folder.parent / "old")
    log.append(sealed(5)[3:])
    _, past = follow(folder, signer.public_key)
    shutil.copy(folder.parent / "old", folder / CHECKPOINT)
    with pytest.raises(LogRewound):
        follow(folder, signer.public_key, past)


@pytest.mark.parametrize("later", [3, 9, 300])
def test_a_forked_log_is_noticed(tmp_path, signer, sealed, later):
    past = None
    for name, leaves in (("a", sealed(3)), ("b", [sealed(4)[3], *sealed(400)[1:later]])):
        made = TransparencyLog.create(tmp_path / name, ORIGIN, signer)
        made.append(leaves)
        made.close()
        if past is None:
            _, past = follow(tmp_path / name, signer.public_key)
    with pytest.raises(LogForked):
        follow(tmp_path / "b", signer.public_key, past)


def test_a_log_of_another_key_or_name_is_refused(log, folder, signer, stranger, sealed):
    log.append(sealed(2))
    with pytest.raises(CheckpointForged):
        follow(folder, stranger.public_key)
    other = checkpoints.sign(signer, "example.org/other", 1, bytes(32))
    past = known(other.encode(), signer.public_key)
    with pytest.raises(ForeignOrigin):
        Following(LogFolder(folder), past, signer.public_key)


def test_entries_that_were_changed_are_refused(log, folder, signer, sealed):
    log.append(sealed(5))
    bundle = folder / Tile(None, 0, 5).path
    content = bundle.read_bytes()
    at = content.index(b'"payload":"') + 20
    bundle.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(EntryForged):
        follow(folder, signer.public_key)
    bundle.unlink()
    with pytest.raises(TileUnavailable):
        follow(folder, signer.public_key)


def test_entries_in_another_order_are_refused(log, folder, signer, sealed):
    leaves = sealed(2)
    log.append(leaves)
    bundle = folder / Tile(None, 0, 2).path
    bundle.write_bytes(b"".join(len(one).to_bytes(2, "big") + one for one in reversed(leaves)))
    with pytest.raises(RootMismatch):
        follow(folder, signer.public_key)
