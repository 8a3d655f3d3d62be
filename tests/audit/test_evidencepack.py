from __future__ import annotations

import errno
import hashlib
import os

import pytest

from catena.audit import evidencepack
from catena.audit.evidence import (
    EvidenceAltered,
    EvidenceMissing,
    EvidenceStore,
    EvidenceUnwritable,
)
from catena.audit.evidencepack import PackReader, PackWriter


def content(number: int, size: int = 900) -> tuple[str, bytes]:
    data = number.to_bytes(4, "big") * (size // 4)
    return hashlib.sha256(data).hexdigest(), data


CONTENTS = [content(number) for number in range(40)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "packs"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_put_is_read_again_in_any_order(folder):
    writer = PackWriter(folder)
    for start in range(0, 40, 7):
        writer.put(CONTENTS[start : start + 7])
    reader = PackReader(folder)
    for sha256, data in [*CONTENTS, *reversed(CONTENTS), CONTENTS[20]]:
        assert reader.read(sha256) == data
    assert reader.read(content(99)[0]) is None
    assert names(folder) == ["pack-00000001", "pack-00000001.index"]


def test_a_full_pack_is_followed_by_the_next(folder):
    writer = PackWriter(folder, full=3000)
    for one in CONTENTS:
        writer.put([one])
    assert len(names(folder)) == 2 * 10
    reader = PackReader(folder)
    assert all(reader.read(sha256) == data for sha256, data in CONTENTS)


def test_a_restart_and_another_process_begin_packs_of_their_own(folder):
    first, second = PackWriter(folder), PackWriter(folder)
    first.put(CONTENTS[:1])
    second.put(CONTENTS[1:2])
    first.put(CONTENTS[2:3])
    PackWriter(folder).put(CONTENTS[3:4])
    assert [name for name in names(folder) if name[-1].isdigit()] == [
        f"pack-0000000{number}" for number in (1, 2, 3)
    ]
    reader = PackReader(folder)
    assert all(reader.read(sha256) == data for sha256, data in CONTENTS[:4])


@pytest.mark.parametrize("lost", [0, 1, 43, 44, 45, 10 * 44])
def test_what_a_crash_took_of_the_index_is_found_in_the_pack(folder, lost):
    PackWriter(folder).put(CONTENTS[:10])
    index = folder / "pack-00000001.index"
    index.write_bytes(index.read_bytes()[: 10 * 44 - lost])
    assert all(PackReader(folder).read(sha256) == data for sha256, data in CONTENTS[:10])
    index.unlink()
    assert all(PackReader(folder).read(sha256) == data for sha256, data in CONTENTS[:10])


def test_a_pack_that_a_crash_cut_short_still_has_what_is_whole(folder):
    PackWriter(folder).put(CONTENTS[:3])
    pack = folder / "pack-00000001"
    whole = pack.read_bytes()
    (folder / "pack-00000001.index").unlink()
    for size in range(len(whole)):
        pack.write_bytes(whole[:size])
        read = [PackReader(folder).read(sha256) for sha256, _ in CONTENTS[:3]]
        there = [data for data in read if data is not None]
        assert there == [data for _, data in CONTENTS[: len(there)]]


def test_a_folder_that_was_moved_away_is_begun_again(folder):
    writer = PackWriter(folder)
    writer.put(CONTENTS[:1])
    folder.rename(folder.with_name("lost"))
    writer.put(CONTENTS[1:2])
    assert PackReader(folder).read(CONTENTS[1][0]) == CONTENTS[1][1]


class FullDisk:
    """Writes that fail half-way, as on a disk without room."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, descriptor: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(descriptor, bytes(data)[: self.room])
        self.room -= written
        return written


class Os:
    """``os`` with another ``write``."""

    def __init__(self, disk: FullDisk) -> None:
        self.write = disk.write

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)


@pytest.mark.parametrize("room", [0, 10, 23, 500])
def test_a_full_disk_leaves_no_half_records_and_no_heap_of_packs(folder, monkeypatch, room):
    writer, disk = PackWriter(folder), FullDisk(10**6)
    monkeypatch.setattr(evidencepack, "os", Os(disk))
    writer.put(CONTENTS[:1])
    before = (folder / "pack-00000001").read_bytes()
    disk.room = room
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            writer.put(CONTENTS[1:2])
    assert (folder / "pack-00000001").read_bytes() == before
    fresh = PackWriter(folder)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            fresh.put(CONTENTS[1:2])
    assert len(names(folder)) <= 4
    disk.room = 10**6
    writer.put(CONTENTS[2:3])
    reader = PackReader(folder)
    assert [reader.read(sha256) for sha256, _ in CONTENTS[:3]] == [
        CONTENTS[0][1],
        None,
        CONTENTS[2][1],
    ]


def test_the_store_checks_what_it_reads_from_a_pack(tmp_path):
    store = EvidenceStore(tmp_path / "evidence")
    sha256, data = CONTENTS[0]
    store.keep({}, {sha256: data})
    assert store.read(sha256) == data
    pack = tmp_path / "evidence/packs/pack-00000001"
    raw = pack.read_bytes()
    pack.write_bytes(raw[:-1] + b"!")
    with pytest.raises(EvidenceAltered):
        store.read(sha256)
    pack.unlink()
    with pytest.raises(EvidenceMissing):
        store.read(sha256)


def test_a_store_that_cannot_write_says_so(tmp_path):
    (tmp_path / "evidence").write_text("in the way")
    with pytest.raises(EvidenceUnwritable):
        EvidenceStore(tmp_path / "evidence").keep({}, dict(CONTENTS[:1]))
