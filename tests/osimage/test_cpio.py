from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.osimage import cpio
from small_images import read_cpio

PATH = PurePosixPath


def test_every_kind_of_entry_is_written():
    entries = [
        cpio.file(PATH("/a/b/run"), b"#!", executable=True),
        cpio.file(PATH("/plain"), b"text"),
        cpio.link(PATH("/bin"), "usr/bin"),
        cpio.character_device(PATH("/dev/console"), 5, 1),
    ]
    found = read_cpio(cpio.archive(entries))
    assert found["a"] == found["a/b"] == found["dev"] == (stat.S_IFDIR | 0o755, (0, 0), b"")
    assert found["a/b/run"] == (stat.S_IFREG | 0o755, (0, 0), b"#!")
    assert found["plain"] == (stat.S_IFREG | 0o644, (0, 0), b"text")
    assert found["bin"] == (stat.S_IFLNK | 0o777, (0, 0), b"usr/bin")
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, (5, 1), b"")


def test_folders_come_before_what_is_in_them():
    names = list(
        read_cpio(cpio.archive([cpio.file(PATH("/z/y/x"), b""), cpio.file(PATH("/a"), b"")]))
    )
    assert names == sorted(names)
    assert names.index("z") < names.index("z/y") < names.index("z/y/x")


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(max_size=64)),
    st.randoms(),
)
def test_order_of_entries_does_not_matter(files, random):
    entries = [cpio.file(PATH("/") / name, content) for name, content in files.items()]
    written = cpio.archive(entries)
    random.shuffle(entries)
    assert cpio.archive(entries) == written
    assert {name: content for name, (_, _, content) in read_cpio(written).items()} == files


def test_another_program_reads_the_archive(tmp_path):
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    data = cpio.archive([cpio.file(PATH("/a/b"), b"content")])
    subprocess.run(
        [busybox, "cpio", "-i"], check=True, input=data, cwd=tmp_path, capture_output=True
    )
    assert (tmp_path / "a/b").read_bytes() == b"content"
