from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.formats import efi
from catena.formats.efi import VariableData
from catena.formats.tcglog import Event, EventType
from catena.ids import HashAlg
from catena.measure.describe import MAX_LINE, describe
from catena.measure.escape import escape
from changed import replace


def _only(log, pcr, event_type):
    return [describe(e) for e in log.events if e.pcr == pcr and e.type == event_type]


def test_bound_events_are_described_by_what_was_hashed(log):
    assert _only(log, 7, EventType.EV_SEPARATOR) == ["separator"]
    assert _only(log, 7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG)[:2] == [
        "variable SecureBoot = 01",
        "variable PK with 1 keys: CN=DTC PK,O=DTC Test",
    ]
    authority = _only(log, 7, EventType.EV_EFI_VARIABLE_AUTHORITY)
    assert authority == ["authority db: CN=DTC db,O=DTC Test"]
    assert _only(log, 4, EventType.EV_EFI_ACTION) == ["'Calling EFI Application from Boot Option'"]
    assert _only(log, 5, EventType.EV_EFI_GPT_EVENT) == ["partition table, 228 bytes"]


def test_unbound_events_are_marked_untrusted(log):
    image = _only(log, 4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION)[0]
    assert image.startswith("untrusted: EV_EFI_BOOT_SERVICES_APPLICATION PciRoot(0x0)/")
    assert image.endswith("\\EFI\\BOOT\\BOOTX64.EFI")
    sections = _only(log, 11, EventType.EV_IPL)
    assert sections[:2] == ["UKI section .linux", "untrusted: EV_IPL '.linux'"]
    tags = _only(log, 9, EventType.EV_EVENT_TAG)
    assert tags[1] == "untrusted: EV_EVENT_TAG 0x8f3b22ec 'Linux initrd'"


def test_name_of_a_boot_variable_is_untrusted_and_its_value_is_not(log):
    line = _only(log, 1, EventType.EV_EFI_VARIABLE_BOOT)[0]
    value = "010000000200"
    assert line == f"{value}, untrusted: EV_EFI_VARIABLE_BOOT variable BootOrder = {value}"


def test_edited_data_loses_its_standing(log):
    secure_boot = log.events[4]
    edited = replace(secure_boot, data=secure_boot.data[:-1] + b"\0")
    expected = "untrusted: EV_EFI_VARIABLE_DRIVER_CONFIG variable SecureBoot = 00"
    assert describe(edited) == expected


def test_retyping_does_not_change_the_description_of_bound_data(log):
    secure_boot = log.events[4]
    retyped = replace(secure_boot, type=EventType.EV_EFI_VARIABLE_AUTHORITY)
    assert describe(retyped) == describe(secure_boot)


def test_every_event_of_every_boot_has_one_printable_line(boot):
    for event in boot.log.events:
        line = describe(event)
        assert line.isprintable()
        assert 0 < len(line) <= MAX_LINE


@pytest.mark.parametrize("event_type", [*EventType, 0x12345678])
@given(data=st.binary(max_size=120), bound=st.booleans(), pcr=st.integers(0, 23))
def test_any_event_has_one_bounded_printable_line(event_type, data, bound, pcr):
    digest = HashAlg.SHA256.digest(data) if bound else bytes(32)
    line = describe(Event(0, pcr, event_type, {HashAlg.SHA256: digest}, data, 0))
    assert line.isprintable()
    assert len(line) <= MAX_LINE
    assert bound or "untrusted:" in line


@given(name=st.text(max_size=20), content=st.binary(max_size=60))
def test_any_variable_has_one_bounded_printable_line(name, content):
    data = VariableData(efi.IMAGE_SECURITY_DATABASE, name, content).encode()
    digests = {HashAlg.SHA256: HashAlg.SHA256.digest(data)}
    event = Event(0, 7, EventType.EV_EFI_ACTION, digests, data, 0)
    assert describe(event).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü", "plain ü"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("\u2028", "\\u2028"),
        ("back\\slash", "back\\slash"),
        ("x" * 11, "x" * 9 + "…"),
        ("x" * 10, "x" * 10),
    ],
)
def test_unprintable_text_is_escaped_and_long_text_cut(text, shown):
    assert escape(text, 10 if text.startswith("x") else 40) == shown
