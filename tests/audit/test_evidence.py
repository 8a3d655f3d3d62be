"""The evidence store waits for the disk as often as it must, and makes a file where it is worth one."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from catena.audit import evidence, evidencepack, folder
from catena.audit.evidence import EvidenceStore


@pytest.fixture
def synced(monkeypatch):
    """The folders that were made durable, in order."""
    folders = []

    def sync(path):
        folders.append(path)
        folder.sync_folder(path)

    monkeypatch.setattr(evidence, "sync_folder", sync)
    return folders


def of_one_folder(count):
    """Contents whose digests begin alike, by digest."""
    found = {}
    for number in range(100_000):
        content = b"%0600d" % number
        digest = hashlib.sha256(content).hexdigest()
        if digest.startswith("00"):
            found[digest] = content
        if len(found) == count:
            return found
    raise AssertionError


def test_a_folder_is_made_durable_once_and_each_file_in_it_always(tmp_path, synced):
    store = EvidenceStore(tmp_path / "evidence")
    first, second = of_one_folder(2).items()
    inner = store.path / "00"
    store.keep(dict([first]))
    assert synced == [tmp_path, store.path, inner]
    store.keep(dict([second]))
    assert synced == [tmp_path, store.path, inner, inner]
    assert [store.read(digest) for digest, _ in (first, second)] == [first[1], second[1]]


def test_a_folder_that_another_process_made_is_made_durable_too(tmp_path, synced):
    first, second = of_one_folder(2).items()
    EvidenceStore(tmp_path / "evidence").keep(dict([first]))
    synced.clear()
    EvidenceStore(tmp_path / "evidence").keep(dict([second]))
    assert synced == [tmp_path, tmp_path / "evidence", tmp_path / "evidence/00"]


def test_a_folder_that_somebody_removed_is_made_again(tmp_path):
    store = EvidenceStore(tmp_path / "evidence")
    first, second = of_one_folder(2).items()
    store.keep(dict([first]))
    shutil.rmtree(store.path)
    store.keep(dict([second]))
    assert store.read(second[0]) == second[1]


def packs(store):
    return sorted(path for path in (store.path / "packs").iterdir() if not path.suffix)


def test_what_is_small_lies_in_the_pack_once(tmp_path):
    store = EvidenceStore(tmp_path / "evidence")
    key, large = b"k" * evidence.SMALL, b"l" * (evidence.SMALL + 1)
    contents = {hashlib.sha256(one).hexdigest(): one for one in (key, large)}
    store.keep(contents)
    [pack] = packs(store)
    size = pack.stat().st_size
    store.keep(contents)
    assert pack.stat().st_size == size
    assert [path.name for path in store.path.glob("??/*")] == [hashlib.sha256(large).hexdigest()]
    assert all(store.has(one) for one in contents)
    assert {one: store.read(one) for one in contents} == contents


def test_each_pack_has_what_is_small_again(tmp_path):
    store = EvidenceStore(tmp_path / "evidence")
    key, first, second = b"key", b"first", b"second"
    digests = [hashlib.sha256(one).hexdigest() for one in (key, first, second)]
    store._writer = evidencepack.PackWriter(store.path / "packs", full=1)
    store.keep({digests[0]: key}, {digests[1]: first})
    store.keep({digests[0]: key}, {digests[2]: second})
    for pack in packs(store):
        assert pack.read_bytes().count(bytes.fromhex(digests[0])) == 1
    assert len(packs(store)) == 2


def test_what_is_remembered_of_a_pack_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "MOST_PACKED", 2)
    store = EvidenceStore(tmp_path / "evidence")
    contents = [b"%d" % number for number in range(6)]
    for content in contents:
        store.keep({hashlib.sha256(content).hexdigest(): content})
        assert len(store._packed) <= 3
    assert [store.read(hashlib.sha256(one).hexdigest()) for one in contents] == contents


def test_after_a_restart_what_is_small_is_kept_again(tmp_path):
    digest = hashlib.sha256(b"key").hexdigest()
    for number in range(2):
        store = EvidenceStore(tmp_path / "evidence")
        assert not store.has(digest)
        store.keep({digest: b"key"})
        store.close()
        assert len(packs(store)) == number + 1
        assert store.read(digest) == b"key"


def test_a_small_content_without_its_digest_is_left_out(tmp_path):
    store = EvidenceStore(tmp_path / "evidence")
    digest = hashlib.sha256(b"key").hexdigest()
    store.keep({digest: b"another"})
    assert not store.has(digest)
    with pytest.raises(evidence.EvidenceMissing):
        store.read(digest)
