from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from catena.osimage import rootfs, tool
from catena.osimage.tree import NotInTree, Tree
from small_images import make_tree

needs_tool = pytest.mark.skipif(
    shutil.which("mksquashfs") is None, reason="mksquashfs is not installed"
)


def listing(image):
    result = subprocess.run(
        ["unsquashfs", "-lls", "-d", "", image],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TZ": "UTC"},
    )
    lines = [line for line in result.stdout.splitlines() if len(line.split()) > 5]
    return {line.split()[5]: line for line in lines}


@needs_tool
def test_same_tree_gives_the_same_image(tmp_path, tree, monkeypatch):
    rootfs.build(tree, rootfs.DEFAULT_EXCLUDES, tmp_path / "1")
    again = Tree(make_tree(tmp_path / "again"))
    os.utime(again.root / "etc/os-release", (1, 1))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "77")
    rootfs.build(again, rootfs.DEFAULT_EXCLUDES, tmp_path / "2")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert (tmp_path / "1").stat().st_size % 4096 == 0


@needs_tool
def test_excluded_content_stays_out_but_its_folder_stays(tmp_path):
    tree = Tree(make_tree(tmp_path / "tree"))
    cache = tree.root / "usr/lib/deep/__pycache__"
    cache.mkdir(parents=True)
    (cache / "x.pyc").write_text("")
    (tree.root / "proc").mkdir()
    (tree.root / "proc/version").write_text("")
    rootfs.build(tree, rootfs.DEFAULT_EXCLUDES, tmp_path / "image")
    found = listing(tmp_path / "image")
    assert {"/var/log", "/proc", "/usr/lib/deep", "/etc/os-release"} <= set(found)
    assert not {"/var/log/noise", "/proc/version", "/usr/lib/deep/__pycache__"} & set(found)
    assert "1970-01-01 00:00" in found["/etc/os-release"]


@needs_tool
def test_exclusions_are_the_callers_choice(tmp_path, tree):
    rootfs.build(tree, ("etc/*",), tmp_path / "image")
    found = listing(tmp_path / "image")
    assert "/var/log/noise" in found
    assert "/etc/os-release" not in found


@needs_tool
def test_failure_of_the_tool_is_an_error(tmp_path, tree):
    with pytest.raises(tool.ToolFailed, match="mksquashfs"):
        rootfs.build(tree, (), tmp_path / "no/where")


def test_missing_tree_is_refused(tmp_path):
    with pytest.raises(NotInTree):
        rootfs.build(Tree(tmp_path / "none"), (), tmp_path / "image")
