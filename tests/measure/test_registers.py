"""Registers of a confidential VM, read as the PCRs that they stand for."""

from __future__ import annotations

import pytest

from catena.formats import tcglog
from catena.formats.efi import EFI_GLOBAL_VARIABLE, VariableData
from catena.formats.tcglog import EventType
from catena.ids import HashAlg
from catena.measure.registers import as_pcrs
from changed import replace

SHA256 = HashAlg.SHA256
KEYS = VariableData(EFI_GLOBAL_VARIABLE, "PK", b"").encode()
OPTION = VariableData(EFI_GLOBAL_VARIABLE, "BootOrder", b"\1\0").encode()
NAME = ".linux\0".encode("utf-16-le")


@pytest.mark.parametrize(
    "row",
    [
        (1, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, KEYS, None, 7),
        (1, EventType.EV_SEPARATOR, bytes(4), None, 7),
        (1, EventType.EV_EFI_VARIABLE_BOOT, OPTION, b"\1\0", 1),
        (1, EventType.EV_PLATFORM_CONFIG_FLAGS, b"ACPI DATA", b"tables", 1),
        (2, EventType.EV_EFI_ACTION, b"Exit Boot Services Invocation", None, 5),
        (2, EventType.EV_EFI_GPT_EVENT, b"EFI PART", None, 5),
        (2, EventType.EV_EFI_BOOT_SERVICES_DRIVER, b"path", b"image", 2),
        (2, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"path", b"image", 4),
        (3, EventType.EV_IPL, b"grub_cmd: true\0", b"true", 8),
        (3, EventType.EV_IPL, b"/boot/vmlinuz\0", b"kernel", 9),
        (3, EventType.EV_IPL, b"MokList\0", b"keys", 14),
        (3, EventType.EV_IPL, NAME, b".linux\0", 11),
        (4, EventType.EV_IPL, b"container", None, 4),
    ],
)
def test_a_register_stands_for_the_pcr_of_what_it_measured(log, edit, measured, row):
    register, kind, data, hashed, pcr = row
    vm = replace(edit(log, [measured(register, kind, data, hashed=hashed)]), format="ccel")
    (event,) = as_pcrs(vm, SHA256).events
    assert (event.pcr, event.data, event.digests) == (pcr, data, vm.events[0].digests)


def test_a_section_follows_its_name(log, edit, measured):
    events = [
        measured(3, EventType.EV_IPL, NAME, hashed=b".linux\0"),
        measured(3, EventType.EV_IPL, NAME, hashed=b"kernel"),
        measured(3, EventType.EV_IPL, b"file", hashed=b"other"),
    ]
    vm = replace(edit(log, events), format="ccel")
    assert [one.pcr for one in as_pcrs(vm, SHA256).events] == [11, 11, 9]


def test_a_separator_is_known_by_its_digest(log, edit, measured):
    vm = replace(edit(log, [measured(1, EventType.EV_IPL, bytes(4))]), format="ccel")
    assert as_pcrs(vm, SHA256).events[0].pcr == 7


def test_other_logs_stay_as_they_are(log):
    assert log.format != "ccel"
    assert as_pcrs(log, SHA256) is log


def test_a_real_log_keeps_its_order_and_digests(corpus):
    name = "google+go-eventlog__testdata__eventlogs__ccel__cos-113-intel-tdx.bin"
    vm = tcglog.parse((corpus / "eventlogs" / name).read_bytes())
    told = as_pcrs(vm, HashAlg.SHA384)
    assert [replace(one, pcr=0) for one in told.events] == [
        replace(one, pcr=0) for one in vm.events
    ]
