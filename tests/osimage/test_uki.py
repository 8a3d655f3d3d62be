from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import pe
from catena.ids import HashAlg
from catena.osimage import uki
from catena.osimage.build import DEFAULT_STUB
from catena.osimage.uki import Part, UnusableKernel, UnusableStub
from small_images import small_kernel, small_pe, small_stub

STUB = small_stub()
PARTS = (Part(".osrel", b"ID=x\n"), Part(".cmdline", b"quiet"), Part(".linux", b"k" * 5000))


def assembled(stub=STUB, parts=PARTS):
    return pe.parse(uki.assemble(stub, parts))


def test_parts_are_found_by_name_with_their_content():
    image = assembled()
    for part in PARTS:
        assert image.content(image.section(part.name)) == part.content
    for section in pe.parse(STUB).sections:
        assert section in image.sections


def test_sections_neither_overlap_in_memory_nor_leave_the_image():
    image = assembled()
    end = 0
    for section in sorted(image.sections, key=lambda one: one.virtual_address):
        assert section.virtual_address >= end
        end = section.virtual_address + section.virtual_size
    assert end <= image.size_of_image
    added = [image.section(part.name) for part in PARTS]
    assert all(section.virtual_address % 4096 == 0 for section in added)
    assert all(section.raw_offset % image.file_alignment == 0 for section in added)


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=5))
def test_any_content_survives_assembly(contents):
    parts = [Part(f".p{number}", content) for number, content in enumerate(contents)]
    image = assembled(parts=parts)
    assert [image.content(image.section(part.name)) for part in parts] == contents


def test_same_parts_give_the_same_bytes():
    assert uki.assemble(STUB, PARTS) == uki.assemble(STUB, PARTS)


@pytest.mark.skipif(not DEFAULT_STUB.is_file(), reason="systemd's EFI stub is not installed")
def test_real_stub_takes_the_parts():
    image = assembled(Path(DEFAULT_STUB).read_bytes())
    assert image.content(image.section(".linux")) == b"k" * 5000
    header = image.data[image.coff_at + 8 : image.coff_at + 16]
    assert header == bytes(8)  # no symbol table


def signed(stub):
    image = pe.parse(stub)
    entry = len(stub).to_bytes(4, "little") + (16).to_bytes(4, "little")
    table = (16).to_bytes(4, "little") + b"\0\2\2\0" + bytes(8)
    return stub[: image.security_at] + entry + stub[image.security_at + 8 :] + table


@pytest.mark.parametrize(
    ("stub", "why"),
    [
        (signed(STUB), "signed already"),
        (uki.assemble(STUB, PARTS), "assembled image already"),
        (small_pe(()), "no sections"),
        (small_pe(tuple((f".s{n}", b"x") for n in range(16))), "no room"),
    ],
)
def test_unusable_stubs_are_refused(stub, why):
    with pytest.raises(UnusableStub, match=why):
        uki.assemble(stub, PARTS)


def test_other_files_are_no_stubs():
    with pytest.raises(FormatError):
        uki.assemble(b"#!/bin/sh", PARTS)


def test_section_digests_cover_loaded_content():
    digests = uki.section_digests(assembled(), [HashAlg.SHA256])
    assert digests[".cmdline"] == {"sha256": HashAlg.SHA256.digest(b"quiet").hex()}


def test_kernel_names_its_release():
    assert uki.kernel_release(small_kernel("6.1.0-56-cloud-amd64")) == "6.1.0-56-cloud-amd64"


@pytest.mark.parametrize("kernel", [b"", b"\x7fELF" * 300, small_kernel("\n"), small_kernel("\1")])
def test_other_files_are_no_kernels(kernel):
    with pytest.raises(UnusableKernel):
        uki.kernel_release(kernel)
