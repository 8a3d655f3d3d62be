from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest

from catena.osimage.tree import NotInTree, Tree, UnreadableTree

NOBODY = 65534


@pytest.fixture
def small(tmp_path):
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"inside")
    (root / "bin").symlink_to("usr/bin")
    return Tree(root)


def path(text):
    return PurePosixPath(text)


def test_links_are_followed_inside_the_tree(small):
    assert small.resolve(path("/bin/tool")) == path("/usr/bin/tool")
    assert small.read(path("/bin/tool")) == b"inside"
    assert small.find("tool", ("/sbin", "/bin")) == path("/usr/bin/tool")


@pytest.mark.parametrize("target", ["/secret", "../../secret", "../../../../../../secret"])
def test_links_cannot_reach_the_builders_files(small, target):
    (small.root.parent / "secret").write_bytes(b"outside")
    (small.root / "secret").write_bytes(b"of the tree")
    (small.root / "usr/bin/leak").symlink_to(target)
    assert small.read(path("/bin/leak")) == b"of the tree"


def test_folder_links_cannot_reach_the_builders_files(small):
    (small.root.parent / "etc").mkdir()
    (small.root.parent / "etc/shadow").write_bytes(b"outside")
    (small.root / "etc").symlink_to("../etc")
    with pytest.raises(NotInTree):
        small.read(path("/etc/shadow"))


def test_endless_links_are_refused(small):
    (small.root / "a").symlink_to("b")
    (small.root / "b").symlink_to("a")
    with pytest.raises(NotInTree, match="too many"):
        small.resolve(path("/a"))


def test_missing_files_are_named(small):
    with pytest.raises(NotInTree, match="/usr/bin/none"):
        small.resolve(path("/usr/bin/none"))
    with pytest.raises(NotInTree, match="none"):
        small.find("none", ("/bin",))
    with pytest.raises(NotInTree):
        Tree(small.root / "none").check_readable()


@pytest.mark.parametrize("hidden", ["usr/bin/tool", "usr/bin"])
def test_parts_that_the_builder_cannot_read_are_refused(small, tmp_path, hidden):
    small.check_readable()
    user = os.geteuid()
    if user == 0:
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
    (small.root / hidden).chmod(0)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        with pytest.raises(UnreadableTree):
            small.check_readable()
        with pytest.raises((UnreadableTree, PermissionError)):
            small.read(path("/usr/bin/tool"))
    finally:
        os.seteuid(user)
        (small.root / hidden).chmod(0o755)
