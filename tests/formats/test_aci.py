"""ACIs: their ID is that of the archive inside, and nothing else is in it than there should be."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tarfile
from itertools import pairwise

import pytest
from hostile import bit_flips, refuses_cleanly

from catena.errors import FormatError
from catena.formats import aci as aci_format
from catena.formats.aci import UnexpectedEntry
from small_signatures import ACI_MANIFEST, COMPRESSIONS, aci, aci_entries, tar, tar_entry

GOOD = aci()
LONG = "rootfs/" + "deep/" * 60 + "file"


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_image_id_is_that_of_the_uncompressed_archive(compression):
    found = aci_format.parse(COMPRESSIONS[compression](GOOD))
    assert found.image_id == "sha512-" + hashlib.sha512(GOOD).hexdigest()
    assert found.size == len(GOOD)
    assert found.entries == 4
    assert found.manifest.name == "example.com/app"
    assert found.manifest.label("version") == "1.0.0"
    assert found.manifest.label("arch") == ""


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_every_kind_are_read(form):
    name = "rootfs/" + "d" * 90 + "/" + "f" * 90 if form == tarfile.USTAR_FORMAT else LONG
    archive = tar(*aci_entries(), tar_entry(name, b"x"), form=form)
    assert aci_format.parse(archive).entries == 5


def test_what_tar_writes_is_read(tmp_path):
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    (tmp_path / "rootfs/bin/app").write_bytes(b"x" * 5000)
    (tmp_path / "rootfs/bin/link").symlink_to("../../../etc/passwd")
    (tmp_path / "rootfs/bin/again").hardlink_to(tmp_path / "rootfs/bin/app")
    (tmp_path / "manifest").write_text(json.dumps(ACI_MANIFEST))
    made = subprocess.run(
        ["tar", "-c", "./manifest", "./rootfs"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert aci_format.parse(made.stdout).manifest.name == "example.com/app"


@pytest.mark.parametrize(
    "extra",
    [
        tar_entry("evil", b"x"),
        tar_entry("rootfs2/x", b"x"),
        tar_entry("manifest", b"{}"),
        tar_entry("rootfs", kind=tarfile.DIRTYPE),
        tar_entry("manifest/x", b"x"),
        tar_entry("rootfs/x", kind=tarfile.LNKTYPE, target="manifest"),
        tar_entry("rootfs/x", kind=b"S"),
        tar_entry("./evil", b"x"),
    ],
)
def test_an_extra_entry_is_refused(extra):
    with pytest.raises(UnexpectedEntry):
        aci_format.parse(aci(extra))


@pytest.mark.parametrize(
    "extra",
    [
        tar_entry("rootfs/../evil", b"x"),
        tar_entry("/rootfs/x", b"x"),
        tar_entry("rootfs/x", kind=tarfile.LNKTYPE, target="rootfs/../../etc/shadow"),
        tar_entry("rootfs/x", kind=tarfile.LNKTYPE, target="/etc/shadow"),
    ],
)
def test_a_name_that_leaves_the_archive_is_refused(extra):
    with pytest.raises(FormatError, match="leaves"):
        aci_format.parse(aci(extra))


@pytest.mark.parametrize("missing", [0, 1])
def test_an_archive_without_manifest_or_root_is_refused(missing):
    entries = [one for number, one in enumerate(aci_entries()) if number != missing]
    with pytest.raises(UnexpectedEntry, match="lacks"):
        aci_format.parse(tar(*entries))


@pytest.mark.parametrize(
    "changes",
    [
        {"acKind": "PodManifest"},
        {"acVersion": "0.8"},
        {"acVersion": "v0.8.11"},
        {"name": "Example.com/app"},
        {"name": "example.com//app"},
        {"name": "-app"},
        {"name": "example.com/app\n"},
        {"labels": [{"name": "version", "value": "1"}, {"name": "version", "value": "2"}]},
        {"labels": [{"name": "name", "value": "x"}]},
        {"labels": [{"name": "version"}]},
        {"labels": {"version": "1"}},
    ],
)
def test_a_bad_manifest_is_refused(changes):
    with pytest.raises(FormatError):
        aci_format.parse_manifest(json.dumps(ACI_MANIFEST | changes).encode())


@pytest.mark.parametrize("missing", ["acKind", "acVersion", "name"])
def test_a_manifest_without_a_required_field_is_refused(missing):
    fields = {name: value for name, value in ACI_MANIFEST.items() if name != missing}
    with pytest.raises(FormatError):
        aci_format.parse_manifest(json.dumps(fields).encode())


def test_a_manifest_with_two_names_is_refused():
    manifest = json.dumps(ACI_MANIFEST).encode().replace(b'"acKind"', b'"name":"acme.com/x","acKind"')  # fmt: skip
    with pytest.raises(FormatError, match="twice"):
        aci_format.parse_manifest(manifest)


def test_a_manifest_that_is_too_large_is_refused():
    big = ACI_MANIFEST | {"x": "x" * aci_format.MAX_MANIFEST}
    with pytest.raises(FormatError, match="too large"):
        aci_format.parse(aci(manifest=big))


def test_an_archive_that_grows_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(aci_format, "MAX_UNCOMPRESSED", len(GOOD) - 1)
    with pytest.raises(FormatError, match="too large"):
        aci_format.parse(gzip.compress(GOOD))


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz"])
def test_a_bomb_is_refused_before_it_has_grown(compression):
    bomb = COMPRESSIONS[compression](aci(tar_entry("rootfs/zeros", bytes(aci_format.SMALL))))
    with pytest.raises(FormatError, match="too large"):
        aci_format.parse(bomb)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bytes_behind_the_archive_are_refused(compression):
    with pytest.raises(FormatError):
        aci_format.parse(COMPRESSIONS[compression](GOOD) + b"more")
    with pytest.raises(FormatError):
        aci_format.parse(COMPRESSIONS[compression](GOOD + b"x" * 512))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_archive_cut_anywhere_is_refused(compression):
    wire = COMPRESSIONS[compression](GOOD)
    content = len(GOOD.rstrip(b"\0")) if compression == "plain" else len(wire)
    for end in range(0, content, 1 + content // 400):
        with pytest.raises(FormatError):
            aci_format.parse(wire[:end])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_flipped_bits_are_refused_cleanly(compression):
    wire = COMPRESSIONS[compression](GOOD)
    step = 1 + len(wire) * 8 // 400
    assert all(refuses_cleanly(aci_format.parse, damaged) for damaged in bit_flips(wire, step))


def test_a_flipped_bit_in_a_header_does_not_pass_its_checksum():
    before, behind = GOOD[:148], GOOD[156:345]
    for damaged in bit_flips(before, step=5):
        with pytest.raises(FormatError):
            aci_format.parse(damaged + GOOD[148:])
    for damaged in bit_flips(behind, step=5):
        with pytest.raises(FormatError):
            aci_format.parse(GOOD[:156] + damaged + GOOD[345:])


def test_the_same_archive_in_other_chunks_is_the_same(monkeypatch):
    sizes = (7, 512, 1000, 1 << 20)
    found = []
    for size in sizes:
        monkeypatch.setattr(aci_format, "_CHUNK", size)
        found.append(aci_format.parse(gzip.compress(GOOD)))
    assert all(one == other for one, other in pairwise(found))
