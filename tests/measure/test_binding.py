from __future__ import annotations

import pytest

from catena.formats import efi
from catena.formats.efi import VariableData
from catena.formats.tcglog import EventType
from catena.ids import HashAlg
from catena.measure.binding import Binding, binding, covered, is_bound, section_name
from changed import replace

SHA256 = HashAlg.SHA256
BOOT_ORDER = VariableData(efi.EFI_GLOBAL_VARIABLE, "BootOrder", b"\1\0")


def test_whole_data_is_bound(measured):
    assert binding(measured(5, EventType.EV_EFI_ACTION, b"x"), SHA256) is Binding.WHOLE


def test_edited_data_is_not_bound(measured):
    event = replace(measured(5, EventType.EV_EFI_ACTION, b"x"), data=b"y")
    assert binding(event, SHA256) is Binding.NONE
    assert not is_bound(event, SHA256)


def test_nothing_is_bound_in_a_bank_without_digest(measured):
    assert binding(measured(5, EventType.EV_EFI_ACTION, b"x"), HashAlg.SHA512) is Binding.NONE


@pytest.mark.parametrize("tail", ["", "\0"])
def test_section_name_is_bound_in_pcr_11_only(measured, tail):
    data = f".linux{tail}".encode("utf-16-le")
    event = measured(11, EventType.EV_IPL, data, hashed=b".linux\0")
    assert binding(event, SHA256) is Binding.SECTION_NAME
    assert binding(replace(event, pcr=12), SHA256) is Binding.NONE
    assert binding(replace(event, data=".initrd\0".encode("utf-16-le")), SHA256) is Binding.NONE


@pytest.mark.parametrize("pcr", [1, 5])
def test_boot_variable_hashed_by_value_binds_its_value_in_its_pcrs_only(measured, pcr):
    event = measured(pcr, EventType.EV_EFI_VARIABLE_BOOT, BOOT_ORDER.encode(), hashed=b"\1\0")
    assert binding(event, SHA256) is Binding.CONTENT
    renamed = replace(BOOT_ORDER, name="Timeout").encode()
    assert binding(replace(event, data=renamed), SHA256) is Binding.CONTENT
    assert binding(replace(event, pcr=7), SHA256) is Binding.NONE


def test_grub_line_binds_its_text_without_its_kind(measured):
    event = measured(8, EventType.EV_IPL, b"grub_cmd: set a: b\0", hashed=b"set a: b")
    assert binding(event, SHA256) is Binding.CONTENT
    assert binding(replace(event, pcr=9), SHA256) is Binding.NONE


@pytest.mark.parametrize(
    ("data", "hashed"),
    [
        (b"grub_cmd: set a: b\0", b"set a: b"),
        (b"grub_cmd set a\0", b"set a\0"),
        (b"grub_kernel_cmdline /vmlinuz ro\0", b"/vmlinuz ro"),
        (b"r\0o\0\0", b"r\0o\0\0\0"),
    ],
)
def test_bound_content_is_what_was_hashed(measured, data, hashed):
    event = measured(8, EventType.EV_IPL, data, hashed=hashed)
    assert covered(event, SHA256) == (Binding.CONTENT, hashed)
    assert covered(replace(event, data=data + b"x"), SHA256) == (Binding.NONE, b"")
    empty = measured(8, EventType.EV_IPL, b"grub_cmd: \0", hashed=b"")
    assert covered(empty, SHA256) == (Binding.NONE, b"")


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\0", b"\1\0", b"\xe9\0", b"a\0" * 65, b"\0\xd8a\0"]
)
def test_what_is_no_ascii_text_is_no_section_name(data):
    assert not section_name(data)
