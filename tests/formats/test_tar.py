"""Tar archives, one header at a time: what names a file, how long it is, where the archive ends."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats.tar import MAX_EXTENSION, Archive
from small_signatures import tar, tar_entry

NAMES = st.text("abcXYZ09_ßü😀", min_size=1, max_size=150)


def read(wire):
    archive = Archive(iter([wire]))
    return [(one.name, archive.content(1 << 20)) for one in archive.entries()]


@given(
    entries=st.dictionaries(NAMES, st.binary(max_size=1200), max_size=5),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_every_archive_is_read_as_it_was_written(entries, form):
    wire = tar(*(tar_entry(name, content) for name, content in entries.items()), form=form)
    assert dict(read(wire)) == entries


def test_content_may_be_passed_over():
    wire = tar(tar_entry("a", b"x" * 3000), tar_entry("b", b"y"))
    assert [one.name for one in Archive(iter([wire])).entries()] == ["a", "b"]


def test_a_large_size_is_read_in_binary():
    header = tar_entry("big")[0]
    header.size = 9 * 1024**3
    archive = Archive(iter([header.tobuf(tarfile.GNU_FORMAT)]))
    entries = archive.entries()
    assert next(entries).size == 9 * 1024**3
    with pytest.raises(FormatError, match="too large"):
        archive.content(1 << 20)
    with pytest.raises(FormatError, match="truncated"):
        next(entries)


def extension(kind, content):
    info, _ = tar_entry("x", content, kind)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    "wire",
    [
        extension(b"x", b"9 path=a"),
        extension(b"x", b"999 path=a\n"),
        extension(b"x", b"9 path_a\n"),
        extension(b"x", b"-9 path=a\n"),
        extension(b"x", b"x path=a\n"),
        extension(b"x", b"25 GNU.sparse.major=1.0.\n"),
        extension(b"x", b"9 path=\0\n"),
        extension(b"x", b"10 size=99\n"),
        extension(b"g", b"9 path=a\n"),
        extension(b"L", bytes(MAX_EXTENSION + 1)),
    ],
)
def test_a_bad_extension_is_refused(wire):
    with pytest.raises(FormatError):
        read(wire + tar(tar_entry("y", b"content")))


def test_an_extension_without_a_file_is_refused():
    with pytest.raises(FormatError, match="behind an extension"):
        read(extension(b"L", b"name\0") + tar())


def test_an_archive_needs_its_end():
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        archive.addfile(*[tar_entry("a")[0]])
    assert read(whole.getvalue()) == [("a", b"")]
    for wire in (whole.getvalue()[:512], whole.getvalue()[:1024], b""):
        with pytest.raises(FormatError):
            read(wire)
