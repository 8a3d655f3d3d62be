from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.osimage import elf
from small_images import small_module

PROGRAM = Path(shutil.which("true") or "/bin/true")
MODULE = small_module("disk", "bus,core")


def refuses_cleanly(data):
    for read in (elf.module_info, elf.linkage):
        try:
            read(data)
        except FormatError:
            continue
    return True


def test_linkage_of_a_real_program_equals_what_the_loader_says():
    found = elf.linkage(PROGRAM.read_bytes())
    listing = subprocess.run(
        ["ldd", str(PROGRAM)], check=True, capture_output=True, text=True
    ).stdout
    assert found.interpreter is not None
    assert found.interpreter in listing
    assert all(library in listing for library in found.needed)
    assert any(library.startswith("libc.so") for library in found.needed)


def test_module_info_is_read():
    info = elf.module_info(MODULE)
    assert info == {"license": "GPL", "depends": "bus,core", "name": "disk"}
    assert elf.linkage(MODULE) == elf.Linkage(None, ())


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"MZ" * 100, b"\x7fELF\x01\x01" + bytes(100)])
def test_other_files_are_refused(data):
    with pytest.raises(FormatError):
        elf.linkage(data)
    with pytest.raises(FormatError):
        elf.module_info(data)


def test_program_is_no_kernel_module():
    with pytest.raises(FormatError, match="not a kernel module"):
        elf.module_info(PROGRAM.read_bytes())


def test_truncation_anywhere_is_refused():
    for size in range(len(MODULE)):
        with pytest.raises(FormatError):
            elf.module_info(MODULE[:size])


def test_flipped_bits_never_crash():
    for bit in range(0, len(MODULE) * 8, 3):
        flipped = bytearray(MODULE)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refuses_cleanly(bytes(flipped))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_crash(noise):
    assert refuses_cleanly(b"\x7fELF\x02\x01" + noise)
