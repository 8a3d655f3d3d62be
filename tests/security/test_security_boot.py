"""Boots that TRUST says must fail, through the whole appraisal: quote, logs, references, policy."""

from __future__ import annotations

import pytest

from appraise.forged import SHA256, Boot, Exchange, codes, encode_log, judge, measured, rebuilt
from catena.formats import efi, tcglog
from catena.formats.efi import EFI_GLOBAL_VARIABLE, VariableData
from catena.formats.tcglog import Event, EventType
from catena.measure.grammar import RetypedEvent, separator_digests
from changed import replace

VARIABLE = EventType.EV_EFI_VARIABLE_DRIVER_CONFIG


def judged(boot, references):
    return judge(Exchange(boot).evidence(), references)


def before_separator(pcr: int, added: Event):
    """Puts a measurement where firmware's own of that PCR end."""

    def change(events):
        at = next(
            i
            for i, event in enumerate(events)
            if event.pcr == pcr and event.digests[SHA256] in separator_digests(SHA256)
        )
        return [*events[:at], added, *events[at:]]

    return change


def with_other_content(pcr: int, position: int):
    """Changes one bit of what the ``position``-th measurement of a PCR was about."""

    def change(events):
        place = [i for i, event in enumerate(events) if event.pcr == pcr][position]
        event = events[place]
        flipped = bytes([event.data[0] ^ 1]) + event.data[1:]
        return [*events[:place], measured(pcr, event.type, flipped), *events[place + 1 :]]

    return change


def mode_variable(name: str) -> Event:
    return measured(7, VARIABLE, VariableData(EFI_GLOBAL_VARIABLE, name, b"\1").encode())


@pytest.mark.parametrize("name", ["AuditMode", "SetupMode"])
def test_firmware_in_audit_or_setup_mode_is_untrusted(boot, references, name):
    """Firmware that measures the mode says so; its Secure Boot variable may still be 1."""
    appraisal = judged(rebuilt(boot, before_separator(7, mode_variable(name))), references)
    assert appraisal.facts.secure_boot
    assert {"policy:user-mode", "key-set-mismatch", "unclaimed-event"} <= set(codes(appraisal))


def test_firmware_whose_platform_key_is_gone_is_untrusted(boot, references):
    def without_pk(events):
        empty = measured(7, VARIABLE, VariableData(EFI_GLOBAL_VARIABLE, "PK", b"").encode())
        return [
            empty if event.pcr == 7 and event.type == VARIABLE and _name(event) == "PK" else event
            for event in events
        ]

    appraisal = judged(rebuilt(boot, without_pk), references)
    assert {"policy:user-mode", "key-set-mismatch"} <= set(codes(appraisal))


def _name(event: Event) -> str:
    return efi.parse_variable(event.data).name


def test_a_command_line_from_outside_the_image_is_untrusted(boot, references):
    """systemd-stub measures what overrides the built-in line into PCR 12."""
    line = "init=/bin/sh\0".encode("utf-16-le")
    added = measured(12, EventType.EV_IPL, line)
    appraisal = judged(rebuilt(boot, lambda events: [*events, added]), references)
    assert {"unclaimed-event", "release-mismatch"} <= set(codes(appraisal))
    assert "init=/bin/sh" in appraisal.facts.command_line


def test_changed_smbios_tables_are_untrusted(boot, references):
    """SMBIOS and other handoff tables are measured into PCR 1, which the capture states."""
    added = measured(1, EventType.EV_EFI_HANDOFF_TABLES2, b"SMBIOS with a credential in it")
    appraisal = judged(rebuilt(boot, before_separator(1, added)), references)
    assert {"unclaimed-event", "firmware-mismatch"} <= set(codes(appraisal))


@pytest.mark.parametrize("position", [1, 3, 5])
def test_another_kernel_initrd_or_command_line_section_is_untrusted(boot, references, position):
    """PCR 11 has a pair for each section of the image: its name, then its content."""
    appraisal = judged(rebuilt(boot, with_other_content(11, position)), references)
    assert {"unclaimed-event", "release-mismatch"} <= set(codes(appraisal))
    assert appraisal.release is None


def test_the_boot_log_of_another_machine_does_not_explain_this_one(boot, references):
    """What a cloned disk brings along is the disk: the PCRs are this machine's own."""
    other = rebuilt(boot, with_other_content(1, 0))
    hostile = Boot(boot.log, boot.ima, other.pcrs(SHA256))
    with pytest.raises(Exception, match="does not replay") as caught:
        judged(hostile, references)
    assert caught.value.code == "pcr-unexplained"


def test_a_retyped_separator_is_refused(boot, references):
    """The type is covered by no digest, so the sender may write what he likes there."""
    events = list(tcglog.parse(boot.log).events[1:])
    at = next(i for i, one in enumerate(events) if one.type == EventType.EV_SEPARATOR)
    events[at] = replace(events[at], type=EventType.EV_EFI_ACTION)
    hostile = Boot(encode_log(boot.log, events), boot.ima, boot.values)
    with pytest.raises(RetypedEvent):
        judged(hostile, references)


def test_a_retyped_event_gains_nothing(boot, references):
    """Types beside the separator decide nothing: the verdict is the same with any of them."""
    events = list(tcglog.parse(boot.log).events[1:])
    odd = [
        replace(event, type=0x8000_0123)
        if event.pcr == 11 and event.type == EventType.EV_IPL
        else event
        for event in events
    ]
    retyped = Boot(encode_log(boot.log, odd), boot.ima, boot.values)
    assert judged(retyped, references).verdict == "trusted"
