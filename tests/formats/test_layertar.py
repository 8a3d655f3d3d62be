"""Layer tars: what runtimes agree on is read, what they could read in different ways is refused."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tracemalloc

import pytest
from hostile import bit_flips, fault_offset, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import layertar
from catena.formats.layertar import BLOCK, TarKind
from small_tars import device, fifo, file, folder, hard_link, link, tar, whiteout

LAYER = {
    "./": folder(),
    "etc/": folder(0o700, 5, 6),
    "etc/motd": file(b"hello", 0o640, 1000, 100),
    "etc/same": hard_link("etc/motd"),
    "etc/link": link("../motd"),
    "etc/.wh.gone": whiteout(),
    "dev/null": device(1, 3, 0o666),
    "run/pipe": fifo(),
    "n" * 150 + "/" + "m" * 150: file(b"x" * 1000),
    "cap": file(b"", 0o755, xattrs={"security.capability": b"\1\0\0\2"}),
}
WIRE = tar(LAYER)
TRAILER = 2 * BLOCK
FORMS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]


def header(**changes) -> bytearray:
    """One header block of a file, with its checksum set right after the changes."""
    block = bytearray(tar({"a": file()})[:BLOCK])
    for place, content in changes.items():
        at = int(place.removeprefix("at"))
        block[at : at + len(content)] = content
    if "at148" not in changes:
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return block


def archive(*blocks: bytes) -> bytes:
    return b"".join(blocks) + bytes(TRAILER)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """An extended header with these records."""
    size = b"%011o\0" % len(records)
    return bytes(header(at124=size, at156=kind)) + records + bytes(-len(records) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(b"%d" % length) + len(body):
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def test_every_kind_of_entry_is_read():
    found = {one.path: one for one in layertar.parse(WIRE)}
    assert list(found) == [path.removeprefix("./").rstrip("/").encode() for path in LAYER]
    motd = found[b"etc/motd"]
    assert (motd.kind, motd.mode, motd.uid, motd.gid, motd.size) == (
        TarKind.FILE, 0o640, 1000, 100, 5,
    )  # fmt: skip
    assert motd.digest == hashlib.sha256(b"hello").digest()
    assert (found[b"etc/same"].kind, found[b"etc/same"].target) == (TarKind.HARD_LINK, b"etc/motd")
    assert found[b"etc/link"].target == b"../motd"
    assert found[b"dev/null"].device == (1, 3)
    assert found[b"run/pipe"].kind is TarKind.FIFO
    assert found[b"cap"].xattrs == {b"security.capability": b"\1\0\0\2"}
    assert (found[b"etc"].kind, found[b"etc"].uid) == (TarKind.DIRECTORY, 5)


@pytest.mark.parametrize("form", FORMS)
def test_long_names_and_large_numbers_are_read_in_both_ways_of_writing_them(form):
    name, target = "d/" + "n" * 200, "t" * 200
    layer = {name: file(b"x", uid=1 << 25), "link": link(target), "hard": hard_link(name)}
    found = layertar.parse(tar(layer, form))
    assert [one.path for one in found] == [name.encode(), b"link", b"hard"]
    assert (found[0].uid, found[1].target, found[2].target) == (
        1 << 25, target.encode(), name.encode(),
    )  # fmt: skip


def test_content_is_kept_where_it_is_asked_for():
    found = list(layertar.entries(io.BytesIO(WIRE), keep={b"etc/motd"}))
    assert {one.content for one in found} == {None, b"hello"}


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60)
        .filter(lambda name: name not in {".", ".."}),
        st.builds(
            file,
            st.binary(max_size=2000),
            mode=st.integers(0, 0o7777),
            uid=st.integers(0, (1 << 32) - 1),
            gid=st.integers(0, (1 << 32) - 1),
        ),
        max_size=5,
    ),
    st.sampled_from(FORMS),
)  # fmt: skip
def test_any_file_is_read_as_it_was_written(layer, form):
    found = layertar.parse(tar(layer, form))
    assert [(one.path.decode(), one.mode, one.uid, one.gid, one.size) for one in found] == [
        (path, one.mode, one.uid, one.gid, len(one.content)) for path, one in layer.items()
    ]
    assert [one.digest for one in found] == [
        hashlib.sha256(one.content).digest() for one in layer.values()
    ]


class Trickle:
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._inner.read(min(size, 7))


def test_a_stream_that_trickles_is_read_the_same():
    assert tuple(layertar.entries(Trickle(WIRE))) == layertar.parse(WIRE)


def test_an_archive_cut_at_any_byte_is_refused():
    ends = len(WIRE) - len(WIRE) % BLOCK
    last = len(WIRE.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK
    for size in range(ends):
        fault = fault_offset(layertar.parse, WIRE[:size])
        assert (fault is None) == (size >= last + TRAILER), size


def test_flipped_bits_are_accepted_or_refused_cleanly():
    assert all(refuses_cleanly(layertar.parse, wire) for wire in bit_flips(WIRE, step=11))


def test_a_flipped_bit_in_a_header_is_refused_or_changes_nothing():
    block = bytes(header())
    read = layertar.parse(archive(block))
    for wire in bit_flips(block):
        accepted = fault_offset(layertar.parse, archive(wire)) is None
        assert not accepted or layertar.parse(archive(wire)) == read  # how the checksum is spelled


def test_an_archive_without_entries_is_read():
    assert layertar.parse(bytes(TRAILER)) == ()


PREFIX = {"at345": b"p" * 10}
REFUSED = {
    "neither ustar nor GNU": archive(header(at257=bytes(8))),
    "checksum": archive(header(at148=b"000001\0 ")),
    "lone block of zeros": archive(header()) + header(),
    "no end": bytes(header()),
    "trailing bytes": archive(header()) + b"\0" * 5000 + b"x",
    "not octal": archive(header(at100=b"0000009\0")),
    "negative number": archive(header(at108=b"\xff" * 8)),
    "number too large": archive(header(at124=b"\x80" + b"\xff" * 11)),
    "sparse file": archive(header(at156=b"S")),
    "continuous file": archive(header(at156=b"7")),
    "content of a folder": archive(header(at156=b"5", at124=b"00000000001\0")),
    "absolute name": archive(header(at0=b"/etc")),
    "parent in a name": archive(header(at0=b"a/../../b")),
    "only a parent": archive(header(at0=b"..", at156=b"5")),
    "dot in a name": archive(header(at0=b"a/./b")),
    "double dot slash": archive(header(at0=b"././b")),
    "empty part": archive(header(at0=b"a//b")),
    "no name": archive(header(at0=bytes(100))),
    "file that ends with a slash": archive(header(at0=b"a/")),
    "hard link that leaves": archive(header(at156=b"1", at157=b"../a")),
    "hard link to an absolute name": archive(header(at156=b"1", at157=b"/a")),
    "symlink to nothing": archive(header(at156=b"2")),
    "long part": archive(pax(record(b"path", b"n" * 256)), header()),
    "long name": archive(pax(record(b"path", b"n/" * 2050 + b"n")), header()),
    "name with NUL": archive(pax(record(b"path", b"a\0b")), header()),
    "target with NUL": archive(pax(record(b"linkpath", b"a\0b")), header(at156=b"2")),
    "extended header at the end": archive(pax(record(b"path", b"a"))),
    "two extended headers": archive(pax(record(b"path", b"a")), pax(b""), header()),
    "two names": archive(
        header(at156=b"L", at124=b"00000000002\0"), b"b\0".ljust(BLOCK, b"\0"),
        pax(record(b"path", b"a")), header(),
    ),
    "GNU name without end": archive(
        header(at156=b"L", at124=b"00000000001\0"), b"b".ljust(BLOCK, b"\0"), header()
    ),
    "unknown record": archive(pax(record(b"GNU.sparse.major", b"1")), header()),
    "doubled record": archive(pax(record(b"path", b"a") * 2), header()),
    "record too short": archive(pax(b"3 =\n"), header()),
    "record without length": archive(pax(b"path=a\n"), header()),
    "record beyond the end": archive(pax(b"99 path=a\n"), header()),
    "record without newline": archive(pax(b"8 path=ab"), header()),
    "owner not decimal": archive(pax(record(b"uid", b"-1")), header()),
    "owner too large": archive(pax(record(b"uid", b"4294967296")), header()),
    "global header with a path": archive(pax(record(b"path", b"a"), b"g"), header()),
    "global header before an entry": archive(
        pax(record(b"path", b"a")), pax(record(b"comment", b"c"), b"g"), header()
    ),
    "long extended header": archive(header(at156=b"x", at124=b"00010000000\0")),
    "content beyond the end": archive(header(at124=b"00000100000\0")),
}  # fmt: skip


@pytest.mark.parametrize("wire", REFUSED.values(), ids=REFUSED)
def test_what_runtimes_could_read_in_different_ways_is_refused(wire):
    with pytest.raises(FormatError) as refused:
        layertar.parse(bytes(wire))
    assert 0 <= refused.value.offset <= len(wire)


ACCEPTED = {
    "leading dot": (archive(header(at0=b"./a/b")), [b"a/b"]),
    "the root": (archive(header(at0=b"./", at156=b"5")), [b""]),
    "folder with a slash": (archive(header(at0=b"a/b/", at156=b"5")), [b"a/b"]),
    "prefix": (archive(header(**PREFIX)), [b"p" * 10 + b"/a"]),
    "old type of a file": (archive(header(at156=b"\0")), [b"a"]),
    "numbers with blanks": (archive(header(at100=b"   644 \0")), [b"a"]),
    "numbers in base 256": (archive(header(at108=b"\x80" + bytes(6) + b"\1")), [b"a"]),
    "global comment": (archive(pax(record(b"comment", b"c"), b"g"), header()), [b"a"]),
    "times": (archive(pax(record(b"mtime", b"1.5")), header()), [b"a"]),
    "zeros behind the end": (archive(header()) + bytes(100_000), [b"a"]),
}


@pytest.mark.parametrize(("wire", "paths"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_they_agree_on_is_read(wire, paths):
    assert [one.path for one in layertar.parse(bytes(wire))] == paths


def test_a_gnu_headers_dates_are_no_part_of_the_name():
    block = header(at257=b"ustar  \0", at345=b"00000000001\0")
    assert [one.path for one in layertar.parse(archive(block))] == [b"a"]


def test_too_many_entries_are_refused(monkeypatch):
    monkeypatch.setattr(layertar, "MAX_ENTRIES", 2)
    assert len(layertar.parse(archive(header(), header()))) == 2
    with pytest.raises(FormatError, match="too many"):
        layertar.parse(archive(header(), header(), header()))


def test_a_file_that_is_to_be_kept_has_a_bound(monkeypatch):
    monkeypatch.setattr(layertar, "MAX_KEPT", 4)
    with pytest.raises(FormatError, match="too long"):
        list(layertar.entries(io.BytesIO(WIRE), keep={b"etc/motd"}))


def test_memory_does_not_grow_with_content():
    class Zeros:
        left = 64 << 20

        def read(self, size: int, /) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    class Joined:
        def __init__(self) -> None:
            self._head = io.BytesIO(bytes(header(at124=b"%011o\0" % (64 << 20))))
            self._rest = Zeros()

        def read(self, size: int, /) -> bytes:
            return self._head.read(size) or self._rest.read(size)

    tracemalloc.start()
    with pytest.raises(FormatError, match="past the end"):
        list(layertar.entries(Joined()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
