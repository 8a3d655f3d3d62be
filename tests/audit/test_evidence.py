"""The evidence store waits for the disk as often as it must."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from catena.audit import evidence, folder
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
        content = b"%d" % number
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
