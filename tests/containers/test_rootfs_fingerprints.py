"""Reading folders: every change is noticed, nothing is hashed twice, no link leads out."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from catena.containers.rootfs import tree as trees
from catena.containers.rootfs import walk
from catena.containers.rootfs.fingerprints import Fingerprints
from catena.containers.rootfs.refusals import ForeignMount, UnknownLayers, UnsteadyTree
from catena.containers.rootfs.tree import WHITEOUT, Kind
from catena.containers.rootfs.turns import Turns

TRUSTED = "trusted.overlay."
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="devices and marks need root")


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "root"
    (place / "etc").mkdir(parents=True)
    (place / "etc/motd").write_bytes(b"hello")
    (place / "etc/link").symlink_to("motd")
    (place / "bin").mkdir()
    (place / "bin/sh").write_bytes(b"x" * 3_000_000)
    return place


def look(cache, place, *, fresh=False, marks=None):
    with walk.opened(place) as descriptor:
        return cache.contents(descriptor, marks, fresh=fresh)


def tree_of(place, marks=None):
    with walk.opened(place) as descriptor:
        return walk.listing(descriptor, marks).tree


def test_what_did_not_change_is_not_hashed_again(root):
    cache = Fingerprints()
    first, second = look(cache, root), look(cache, root)
    assert (first.hashed, second.hashed) == (3_000_005, 0)
    assert first.digest == second.digest
    assert (first.tree is None, second.tree is None) == (False, True)


def test_fresh_means_hashed_again(root):
    cache = Fingerprints()
    look(cache, root)
    assert look(cache, root, fresh=True).hashed == 3_000_005


def rewritten(root):
    """Another content of the same length, and the old times put back."""
    place = root / "etc/motd"
    before = place.stat()
    place.write_bytes(b"HELLO")
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchanged(root):
    """Another file in its place, with the same length and times."""
    place, other = root / "etc/motd", root / "etc/other"
    before = place.stat()
    other.write_bytes(b"HELLO")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(place)


CHANGES = {
    "content, times put back": rewritten,
    "file exchanged, times put back": exchanged,
    "file added": lambda root: (root / "etc/new").write_bytes(b""),
    "file removed": lambda root: (root / "etc/motd").unlink(),
    "file renamed": lambda root: (root / "etc/motd").rename(root / "etc/other"),
    "mode": lambda root: (root / "etc/motd").chmod(0o666),
    "setuid": lambda root: (root / "bin/sh").chmod(0o4755),
    "mode of a folder": lambda root: (root / "etc").chmod(0o777),
    "mode of the root": lambda root: root.chmod(0o700),
    "link retargeted": lambda root: (
        (root / "etc/link").unlink(), (root / "etc/link").symlink_to("m0td"),
    ),
    "folder added": lambda root: (root / "etc/d").mkdir(),
    "pipe added": lambda root: os.mkfifo(root / "etc/pipe"),
}  # fmt: skip
if os.geteuid() == 0:
    CHANGES |= {
        "owner": lambda root: os.chown(root / "etc/motd", 1, -1),
        "group": lambda root: os.chown(root / "etc/motd", -1, 1),
        "capability": lambda root: os.setxattr(root / "bin/sh", "security.capability", CAPABILITY),
        "access list": lambda root: os.setxattr(root / "etc/motd", *acl()),
        "device added": lambda root: os.mknod(root / "etc/d", stat.S_IFCHR, os.makedev(1, 3)),
    }


def acl():
    """An access list that lets user 1 read: version, then tag, permissions, id of each entry."""
    entries = ((1, 6, -1), (2, 4, 1), (4, 4, -1), (0x10, 4, -1), (0x20, 4, -1))
    packed = b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + (who & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, bits, who in entries
    )  # fmt: skip
    return "system.posix_acl_access", (2).to_bytes(4, "little") + packed


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_noticed_without_being_strict(root, change):
    cache = Fingerprints()
    before = look(cache, root)
    change(root)
    after = look(cache, root)
    assert after.hashed
    assert after.digest != before.digest


def test_times_alone_change_nothing(root):
    cache = Fingerprints()
    before = look(cache, root)
    os.utime(root / "etc/motd", ns=(0, 0))
    after = look(cache, root)
    assert (after.digest, after.hashed) == (before.digest, 3_000_005)


def test_a_folder_moved_away_and_another_in_its_place_is_read(root):
    cache = Fingerprints()
    before = look(cache, root)
    root.rename(root.with_name("old"))
    root.mkdir()
    assert look(cache, root).digest != before.digest


def test_hard_links_are_hashed_once_and_count_as_files(root):
    os.link(root / "bin/sh", root / "bin/bash")
    found = look(Fingerprints(), root)
    assert found.hashed == 3_000_005
    assert found.tree[b"bin/sh"] == found.tree[b"bin/bash"]


def test_links_are_not_followed_out_of_the_tree(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"x")
    (root / "out").symlink_to(outside)
    (root / "up").symlink_to("../..")
    tree = tree_of(root)
    assert (tree[b"out"].kind, tree[b"up"].content) == (Kind.SYMLINK, b"../..")
    assert b"out/secret" not in tree


def test_a_folder_that_becomes_a_link_while_it_is_read_is_refused(root, monkeypatch, tmp_path):
    true_open = os.open

    def swap(name, flags, **place):
        if name == "etc" and flags & os.O_DIRECTORY and (root / "etc").is_dir():
            (root / "etc").rename(tmp_path / "moved")
            (root / "etc").symlink_to("/etc")
        return true_open(name, flags, **place)

    monkeypatch.setattr(os, "open", swap)
    with walk.opened(root) as descriptor, pytest.raises(UnsteadyTree):
        walk.listing(descriptor, None)


def test_a_file_that_becomes_a_pipe_is_refused_without_waiting(root, monkeypatch):
    true_open = os.open

    def swap(name, flags, **place):
        if name == "motd":
            (root / "etc/motd").unlink()
            os.mkfifo(root / "etc/motd")
        return true_open(name, flags, **place)

    monkeypatch.setattr(os, "open", swap)
    with walk.opened(root) as descriptor, pytest.raises(UnsteadyTree):
        walk.listing(descriptor, None)


def test_files_that_change_while_they_are_read_are_refused(root, monkeypatch):
    true_listing = walk.listing

    def interrupted(descriptor, marks):
        found = true_listing(descriptor, marks)
        (root / "etc/motd").write_bytes(b"HELLO")
        return found

    monkeypatch.setattr(walk, "listing", interrupted)
    with pytest.raises(UnsteadyTree, match="while they were read"):
        look(Fingerprints(), root)


def test_files_that_never_stop_changing_are_refused(root, monkeypatch):
    true_stats = walk.stats

    def busy(descriptor):
        (root / "etc/motd").write_bytes(b"HELLO")
        return true_stats(descriptor)

    monkeypatch.setattr(walk, "stats", busy)
    monkeypatch.setattr(walk, "TICK", 1_000_000_000)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(UnsteadyTree, match="keep changing"):
        look(Fingerprints(), root)


def test_a_folder_that_is_gone_is_refused(tmp_path):
    with pytest.raises(UnsteadyTree), walk.opened(tmp_path / "gone"):
        pass


def test_trees_have_bounds(root, monkeypatch):
    with walk.opened(root) as descriptor, pytest.raises(UnknownLayers):
        walk.listing(descriptor, None, limit=3)
    place = root
    for _ in range(trees.MAX_DEPTH + 1):
        place = place / "d"
    place.mkdir(parents=True)
    with walk.opened(root) as descriptor:
        with pytest.raises(UnknownLayers):
            walk.listing(descriptor, None)
        with pytest.raises(UnknownLayers):
            walk.stats(descriptor)


def test_a_socket_is_listed_as_one(root, monkeypatch):
    monkeypatch.chdir(root)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("s")
        assert tree_of(root)[b"s"].kind is Kind.SOCKET


def test_names_need_not_be_utf_8(root):
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe"))).write_bytes(b"x")
    assert b"\xff\xfe" in tree_of(root)


# Marks of overlayfs ------------------------------------------------------------------------


@needs_root
def test_whiteouts_and_opaque_folders_are_marks_only_in_an_overlays_folders(root):
    os.mknod(root / "etc/gone", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(root / "etc", f"{TRUSTED}opaque", b"y")
    os.setxattr(root / "bin", f"{TRUSTED}origin", b"anything")
    marked, plain = tree_of(root, TRUSTED), tree_of(root)
    assert (marked[b"etc/gone"], marked[b"etc"].opaque) == (WHITEOUT, True)
    assert (plain[b"etc/gone"].kind, plain[b"etc"].opaque) == (Kind.CHARACTER_DEVICE, False)


@needs_root
@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("etc", "redirect", b"/bin"),
        ("etc/motd", "metacopy", b""),
        ("etc", "opaque", b"x"),
        ("etc/motd", "whiteout", b""),
        ("etc/motd", "anything", b""),
    ],
)
def test_marks_that_would_show_other_files_are_refused(root, place, name, value):
    os.setxattr(root / place, f"{TRUSTED}{name}", value)
    with pytest.raises(ForeignMount):
        tree_of(root, TRUSTED)
    tree_of(root)


# Turns -------------------------------------------------------------------------------------


def test_callers_that_wait_share_the_next_turn_but_not_the_one_under_way():
    turns, started, go = Turns(), threading.Semaphore(0), threading.Semaphore(0)
    count = 0

    def work():
        nonlocal count
        count += 1
        mine = count
        started.release()
        assert go.acquire(timeout=10)
        return mine

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(turns.take("key", work))) for _ in range(9)
    ]
    threads[0].start()
    assert started.acquire(timeout=10)
    for thread in threads[1:]:
        thread.start()
    while turns._lines["key"].callers < 9:
        pass
    go.release()
    assert started.acquire(timeout=10)
    go.release()
    for thread in threads:
        thread.join(10)
    assert sorted(results) == [1] + [2] * 8
    assert turns._lines == {}


def test_a_turn_that_fails_is_its_callers_alone():
    turns, results = Turns(), []
    tries = iter((ValueError("no"), "yes"))
    barrier = threading.Barrier(2)

    def work():
        outcome = next(tries)
        if isinstance(outcome, Exception):
            barrier.wait(10)
            while turns._lines["key"].callers < 2:
                pass
            raise outcome
        return outcome

    def first():
        with pytest.raises(ValueError, match="no"):
            turns.take("key", work)

    thread = threading.Thread(target=first)
    thread.start()
    barrier.wait(10)
    results.append(turns.take("key", work))
    thread.join(10)
    assert results == ["yes"]


def test_the_cache_forgets_the_folder_that_was_used_longest_ago(tmp_path):
    cache = Fingerprints(folders=2)
    places = [tmp_path / name for name in "abc"]
    for place in places:
        place.mkdir()
        (place / "f").write_bytes(b"x")
        look(cache, place)
    assert [look(cache, place).hashed for place in reversed(places)] == [0, 0, 1]
