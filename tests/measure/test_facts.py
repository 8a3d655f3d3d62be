from __future__ import annotations

import hashlib

import pytest

from catena.formats import efi
from catena.formats.efi import SignatureEntry, SignatureList, VariableData
from catena.formats.tcglog import EventType
from catena.ids import HashAlg
from catena.measure import facts
from catena.measure.facts import ContradictoryVariable, is_bound, read
from catena.measure.replay import replay
from changed import replace

SHA256 = HashAlg.SHA256
SECURE_BOOT = VariableData(efi.EFI_GLOBAL_VARIABLE, "SecureBoot", b"\1")


def _find(log, pcr, text):
    return next(e for e in log.events if e.pcr == pcr and text.encode("utf-16-le") in e.data)


def _swap(log, edit, event, **changes):
    forged = replace(event, **changes)
    return edit(log, [forged if e is event else e for e in log.events])


def test_secure_boot_and_keys_are_what_the_booted_system_read(boot):
    found = read(boot.log, SHA256)
    assert found.secure_boot == (boot.variable("SecureBoot-") == b"\1")
    assert found.setup_mode == (boot.variable("SetupMode-") == b"\1")
    for name in ("PK", "KEK", "db", "dbx"):
        content = boot.variable(f"{name}-") or b""
        assert found.variables[name] == hashlib.sha256(content).hexdigest()


def test_key_owners_are_the_certificate_subjects(boot):
    found = read(boot.log, SHA256)
    if not found.secure_boot:
        assert found.key_owners == {"PK": (), "KEK": (), "db": (), "dbx": ()}
        return
    owners = {name: (f"CN=DTC {name},O=DTC Test",) for name in ("PK", "KEK", "db")}
    blank = f"sha256:{hashlib.sha256().hexdigest()}"
    assert found.key_owners == {**owners, "dbx": (blank,)}


def test_authority_is_the_key_that_admitted_the_image(boot):
    found = read(boot.log, SHA256)
    expected = ("db: CN=DTC db,O=DTC Test",) if found.secure_boot else ()
    assert found.authorities == expected


def test_images_started_are_counted_without_the_firmwares_remarks(boot):
    images = {"A": 2, "B": 1, "C": 2, "D": 1, "G": 2, "I": 1}
    assert len(read(boot.log, SHA256).images) == images[boot.name[0]]


def test_uki_sections_are_named_with_the_digest_of_their_content(boot):
    sections = read(boot.log, SHA256).uki_sections
    if boot.name.startswith("G"):  # no UKI
        assert sections == ()
        return
    assert [section.name for section in sections] == [".linux", ".osrel", ".cmdline", ".initrd"]
    command_line = "console=ttyS0 quiet loglevel=1 root=/dev/ram0 dtc.id=test"
    digests = {hashlib.sha256(command_line.encode() + tail).hexdigest() for tail in (b"", b"\0")}
    assert sections[2].digest in digests


def test_command_line_is_read_where_one_was_passed(boot):
    line = read(boot.log, SHA256).command_line
    if boot.name[0] == "D":  # credentials, measured into PCR 12 as an archive
        assert line.startswith("opaque:")
    else:
        assert line == (boot.state["cmdline"] if boot.name[0] in "CG" else None)


def test_command_line_cannot_be_hidden_by_making_it_opaque(corpus, edit):
    from recorded_boots import load_boot

    log = load_boot("C_sb_own_sdboot_uki").log
    event = next(e for e in log.events if e.pcr == 12)
    line = read(_swap(log, edit, event, data=b""), SHA256).command_line
    assert line == f"opaque:{event.digests[SHA256].hex()}"


def test_extended_pcrs_show_injected_credentials(boot):
    extended = read(boot.log, SHA256).extended
    assert (12 in extended, 13 in extended) == {"C": (True, False), "D": (True, True)}.get(
        boot.name[0], (boot.name[0] == "G", False)
    )


def test_firmware_version_is_the_first_measurement_of_pcr_0(log, edit):
    assert read(log, SHA256).firmware_version == ""
    version = log.events[1]
    text = "OVMF 1.0\0".encode("utf-16-le")
    named = _swap(log, edit, version, data=text, digests={SHA256: SHA256.digest(text)})
    assert read(named, SHA256).firmware_version == "OVMF 1.0"
    assert read(_swap(log, edit, version, data=b"hidden"), SHA256).firmware_version is None
    binary = bytes(range(0, 32, 2))
    guid = _swap(log, edit, version, data=binary, digests={SHA256: SHA256.digest(binary)})
    assert read(guid, SHA256).firmware_version == binary.hex()


def test_data_edited_without_its_digest_proves_nothing(boot, edit):
    event = next(e for e in boot.log.events if "SecureBoot".encode("utf-16-le") in e.data)
    for value in (b"\0", b"\1", b"\2"):
        lie = event.data[:-1] + value
        forged = _swap(boot.log, edit, event, data=lie)
        believed = read(forged, SHA256).secure_boot
        assert believed == (read(boot.log, SHA256).secure_boot if lie == event.data else None)


@pytest.mark.parametrize("name", ["PK", "KEK", "db", "dbx"])
def test_one_opaque_variable_leaves_no_secure_boot_fact_proven(log, edit, name):
    event = _find(log, 7, name)
    found = read(_swap(log, edit, event, data=event.data + b"\0"), SHA256)
    assert (found.variables, found.key_owners) == ({}, {})
    assert (found.secure_boot, found.setup_mode) == (None, None)


def test_contradiction_cannot_be_hidden_by_making_it_opaque(log, edit, measured):
    off = replace(SECURE_BOOT, data=b"\0").encode()
    hidden = measured(7, EventType.EV_EFI_ACTION, b"nothing to see", hashed=off)
    assert read(edit(log, [log.events[0], hidden, *log.events[1:]]), SHA256).secure_boot is None


@pytest.mark.parametrize("event_type", [t for t in EventType if t != EventType.EV_NO_ACTION])
def test_retyping_events_changes_no_fact_that_still_replays(log, edit, event_type):
    honest, pcrs = read(log, SHA256), replay(log, SHA256).pcrs
    for event in log.events[1:]:
        forged = _swap(log, edit, event, type=event_type)
        as_hcrtm = event.pcr == 0 and event_type == EventType.EV_EFI_HCRTM_EVENT
        assert (replay(forged, SHA256).pcrs == pcrs) != as_hcrtm
        assert as_hcrtm or read(forged, SHA256) == honest


def test_reordering_between_pcrs_changes_no_fact(log, edit):
    by_pcr = sorted(log.events[1:], key=lambda event: (event.pcr, event.index))
    shuffled = edit(log, [log.events[0], *by_pcr])
    assert read(shuffled, SHA256) == read(log, SHA256)


def test_secure_boot_claimed_after_the_separator_is_not_believed(corpus, edit, measured):
    from recorded_boots import load_boot

    off = load_boot("A_nosb_uki").log
    claim = measured(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, SECURE_BOOT.encode())
    assert read(edit(off, [*off.events, claim]), SHA256).secure_boot is False
    only = edit(off, [e for e in off.events if "SecureBoot".encode("utf-16-le") not in e.data])
    assert read(edit(only, [*only.events, claim]), SHA256).secure_boot is None


def test_variable_measured_twice_with_different_content_is_refused(log, edit, measured):
    off = replace(SECURE_BOOT, data=b"\0")
    second = measured(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, off.encode())
    with pytest.raises(ContradictoryVariable):
        read(edit(log, [log.events[0], second, *log.events[1:]]), SHA256)


def test_variable_measured_twice_with_the_same_content_is_accepted(log, edit, measured):
    second = measured(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, SECURE_BOOT.encode())
    twice = edit(log, [log.events[0], second, *log.events[1:]])
    assert read(twice, SHA256).variables == read(log, SHA256).variables


def test_secure_boot_under_a_foreign_guid_does_not_count(log, edit, measured):
    foreign = replace(SECURE_BOOT, guid=efi.SHIM_LOCK)
    event = _find(log, 7, "SecureBoot")
    posed = measured(7, event.type, foreign.encode())
    forged = edit(log, [posed if e is event else e for e in log.events])
    found = read(forged, SHA256)
    assert found.secure_boot is None
    assert "SecureBoot" not in found.variables


@pytest.mark.parametrize("name", ["AuditMode", "DeployedMode", "SetupMode"])
def test_measured_modes_are_facts(log, edit, measured, name):
    for value in (b"\0", b"\1"):
        mode = VariableData(efi.EFI_GLOBAL_VARIABLE, name, value)
        event = measured(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, mode.encode())
        found = read(edit(log, [log.events[0], event, *log.events[1:]]), SHA256)
        field = {"AuditMode": "audit_mode", "DeployedMode": "deployed_mode"}.get(name, "setup_mode")
        assert getattr(found, field) == (value == b"\1")


def test_machine_without_a_platform_key_is_in_setup_mode(log, edit, measured):
    blank = VariableData(efi.EFI_GLOBAL_VARIABLE, "PK", b"")
    event = _find(log, 7, "PK")
    empty = measured(7, event.type, blank.encode())
    assert read(edit(log, [empty if e is event else e for e in log.events]), SHA256).setup_mode
    gone = edit(log, [e for e in log.events if e is not event])
    assert read(gone, SHA256).setup_mode is None


def test_image_started_later_is_listed_whatever_it_is_called(log, edit, measured):
    content = b"Calling EFI Application from Boot Option, or so"
    program = measured(4, EventType.EV_EFI_ACTION, content)
    images = read(edit(log, [*log.events, program]), SHA256).images
    assert images[-1] == SHA256.digest(content).hex()


def test_authority_measured_before_the_separator_is_no_configuration(log, edit):
    authority = _find(log, 7, "db")
    late = next(e for e in reversed(log.events) if e.pcr == 7)
    assert authority is not late
    early = edit(log, [log.events[0], late, *(e for e in log.events[1:] if e is not late)])
    found = read(early, SHA256)
    assert found.authorities == ("db: CN=DTC db,O=DTC Test",)
    assert found.variables == read(log, SHA256).variables


def test_unreadable_keys_are_listed_not_dropped(log, edit, measured):
    junk = SignatureList(
        efi.EFI_CERT_X509, (SignatureEntry(efi.SHIM_LOCK, b"\x30\x03\x02\x01\x01"),)
    )
    event = _find(log, 7, "db")
    db = VariableData(efi.IMAGE_SECURITY_DATABASE, "db", junk.encode())
    posed = measured(7, event.type, db.encode())
    forged = edit(log, [posed if e is event else e for e in log.events])
    assert read(forged, SHA256).key_owners["db"] == ("unreadable",)


def test_malformed_key_variable_is_listed_not_dropped(log, edit, measured):
    event = _find(log, 7, "KEK")
    kek = VariableData(efi.EFI_GLOBAL_VARIABLE, "KEK", b"no signature list")
    posed = measured(7, event.type, kek.encode())
    forged = edit(log, [posed if e is event else e for e in log.events])
    assert read(forged, SHA256).key_owners["KEK"] == ("unreadable",)


def test_firmware_version_behind_another_measurement_is_not_told(log, edit, measured):
    hcrtm = measured(0, EventType.EV_EFI_HCRTM_EVENT, b"HCRTM", hashed=b"firmware")
    forged = edit(log, [log.events[0], hcrtm, *log.events[1:]])
    assert read(forged, SHA256).firmware_version is None


def test_hash_enrolled_in_db_is_an_owner_and_an_authority(log, edit, measured):
    entry = SignatureEntry(efi.SHIM_LOCK, b"h" * 32)
    db = SignatureList(efi.EFI_CERT_SHA256, (entry,))
    config = VariableData(efi.IMAGE_SECURITY_DATABASE, "db", db.encode())
    admitted = VariableData(efi.IMAGE_SECURITY_DATABASE, "db", entry.encode())
    event = _find(log, 7, "db")
    posed = measured(7, event.type, config.encode())
    events = [posed if e is event else e for e in log.events]
    events.append(measured(7, EventType.EV_EFI_VARIABLE_AUTHORITY, admitted.encode()))
    found = read(edit(log, events), SHA256)
    assert found.key_owners["db"] == (f"sha256:{(b'h' * 32).hex()}",)
    assert found.authorities[-1] == f"db: sha256:{(b'h' * 32).hex()}"


def test_uki_sections_cannot_be_paired_differently_by_hiding_a_name(log, edit):
    name = next(e for e in log.events if e.pcr == 11)
    assert read(_swap(log, edit, name, data=b"hidden"), SHA256).uki_sections == ()


def test_boot_phases_behind_the_sections_are_no_sections(log, edit, measured):
    phase = measured(11, EventType.EV_IPL, b"enter-initrd")
    later = edit(log, [*log.events, phase, phase, phase])
    assert read(later, SHA256).uki_sections == read(log, SHA256).uki_sections


def test_uki_section_name_without_content_is_no_section(log, edit):
    last = max(e.index for e in log.events if e.pcr == 11)
    cut = edit(log, [e for e in log.events if e.index != last])
    assert [s.name for s in read(cut, SHA256).uki_sections] == [".linux", ".osrel", ".cmdline"]


def test_text_added_to_the_command_line_shows(corpus, edit, measured):
    from recorded_boots import load_boot

    log = load_boot("C_sb_own_sdboot_uki").log
    added = measured(12, EventType.EV_IPL, "init=/bin/sh\x1b\0".encode("utf-16-le"))
    line = read(edit(log, [*log.events, added]), SHA256).command_line
    assert line.endswith("dtc.id=test init=/bin/sh\\x1b")


def test_bank_without_digests_proves_nothing(log):
    found = read(log, HashAlg.SHA512)
    assert (found.secure_boot, found.variables, found.images) == (None, {}, ())
    assert found.extended == ()


def test_bound_events_are_those_whose_data_was_hashed(log):
    bound = {event.index for event in log.events if is_bound(event, SHA256)}
    opaque = {event.index for event in log.events} - bound
    sections = {e.index for e in log.events if e.pcr == 11}
    assert {0, 2, 3, 24} <= opaque
    assert len(sections & bound) == len(sections & opaque) == 4


def test_facts_offer_what_readers_of_a_log_need():
    assert set(facts.__all__) >= {"BootFacts", "describe", "is_bound", "read"}
